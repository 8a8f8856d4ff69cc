"""``scipy-docs`` as a heterogeneous graph: the public functions and classes of SciPy and NumPy, and their modules.

Relations are ``see_also`` (listed under See Also), ``mentions`` (marked up, written out or imported elsewhere in the
docstring, whether it is listed as well or not) and ``member_of`` (the module of the public name). The task is to
predict ``see_also``: the list itself and module paths are taken out of the text. Subpackages are no
labels here, since the modules spell them out.
"""

import numpy as np

from jaxgkd.data.hetero_graphs import EdgeSet, EdgeType, HeteroGraph, NodeSet, Task, make_hetero_graph
from jaxgkd.data.scipy_docs import clean, documented, references, without_see_also

_SEE_ALSO: EdgeType = ("function", "see_also", "function")


def load_scipy_hetero() -> HeteroGraph:
    """The graph of the installed versions' documentation, the same every time for the same versions.

    Raises:
      DataError: the docstrings have been stripped (``python -OO``).
    """
    items, names, modules, versions = documented()
    row_of = {item.path: row for row, item in enumerate(items)}
    of_module = {path: row for row, path in enumerate(sorted({item.module for item in items}))}
    see_also: list[tuple[int, int]] = []
    mentions: list[tuple[int, int]] = []
    for row, item in enumerate(items):
        # What stands under See Also is asked for, so it must not stand among what is known; nor may what is known leave
        # out what is asked for.
        listed, _ = references(item, names)
        _, mentioned = references(item._replace(docstring=without_see_also(item.docstring)), names)
        for pairs, paths in ((see_also, listed), (mentions, mentioned)):
            others = dict.fromkeys(row_of[path] for path in paths if path in row_of)
            pairs += [(row, other) for other in others if other != row]
    functions = NodeSet(
        ids=np.array([item.path for item in items]),
        texts=tuple(f"{item.name}\n{clean(item.docstring, modules)}" for item in items),
        titles=tuple(item.name for item in items),
    )
    member_of = [(row, of_module[item.module]) for row, item in enumerate(items)]
    return make_hetero_graph(
        name="scipy-docs",
        nodes={"function": functions, "module": NodeSet(np.array(list(of_module)), None, tuple(of_module))},
        edges={
            _SEE_ALSO: _edges(see_also),
            ("function", "mentions", "function"): _edges(mentions),
            ("function", "member_of", "module"): _edges(member_of),
        },
        tasks=[Task("link_prediction", _SEE_ALSO)],
        notes=[f"documentation of {root} {version}" for root, version in versions.items()],
    )


def _edges(pairs: list[tuple[int, int]]) -> EdgeSet:
    ends = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    return EdgeSet(ends[:, 0].copy(), ends[:, 1].copy())
