"""``scipy-docs``: a text graph made from the documentation of the installed SciPy and NumPy, so it needs no download.

Nodes are the public functions and classes, a node's text is its docstring, an edge leads to every function that the
docstring refers to (its See Also list, the names it marks up, and what its examples call by path or import), and the
class is the subpackage. Module paths, import lines and the See Also list are taken out of the text, since they spell
the class out.
"""

import importlib
import inspect
import itertools
import re
import warnings
from collections import Counter
from types import ModuleType
from typing import NamedTuple

import numpy as np

from jaxgkd.data.text_graphs import TextGraph, make_text_graph
from jaxgkd.errors import DataError

# Class and the modules whose public names belong to it. What is found in several modules belongs to the first of them:
# SciPy repeats functions of NumPy, and NumPy's own namespace those of its parts.
SUBPACKAGES = {
    "numpy.fft": ("",),
    "numpy.lib": ("array_utils", "introspect", "mixins", "npyio", "recfunctions", "scimath", "stride_tricks"),
    "numpy.linalg": ("",),
    "numpy.ma": ("", "mrecords"),
    "numpy.polynomial": ("", "chebyshev", "hermite", "hermite_e", "laguerre", "legendre", "polynomial", "polyutils"),
    "numpy.random": ("",),
    "numpy.strings": ("", "char"),
    "numpy.testing": ("",),
    "numpy": ("",),
    "scipy.cluster": ("hierarchy", "vq"),
    "scipy.constants": ("",),
    "scipy.datasets": ("",),
    "scipy.differentiate": ("",),
    "scipy.fft": ("",),
    "scipy.fftpack": ("",),
    "scipy.integrate": ("",),
    "scipy.interpolate": ("",),
    "scipy.io": ("", "arff", "matlab", "wavfile"),
    "scipy.linalg": ("", "interpolative"),
    "scipy.ndimage": ("",),
    "scipy.odr": ("",),
    "scipy.optimize": ("", "elementwise"),
    "scipy.signal": ("", "windows"),
    "scipy.sparse": ("", "csgraph", "linalg"),
    "scipy.spatial": ("", "distance", "transform"),
    "scipy.special": ("",),
    "scipy.stats": ("", "contingency", "mstats", "qmc", "sampling"),
}
_SMALLEST_CLASS = 20
_ALIASES = {"np": "numpy", "sp": "scipy"}
# Headings of a NumPy docstring under which names are explained that are not functions.
_OWN_NAMES = {"Parameters", "Other Parameters", "Returns", "Yields", "Attributes", "Methods"}

_PATH = re.compile(r"(?<![\w.])~?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_LINK = re.compile(r"<?https?://[^\s>]+>?")
# Written out of a Python set, so in another order every time.
_SET = re.compile(r"(?<=Use of argument\(s\) ``\{)[^}]*(?=\})")
_IMPORT = re.compile(r"(?:>>>|\.\.\.)?\s*(?:from\s+[\w.]+\s+import\b|import\s+[\w.]+(?:\s+as\s+\w+)?\s*(?:[,#].*)?$)")
_IMPORT_AS = re.compile(r"import\s+(?:numpy|scipy)[\w.]*\s+as\s+(\w+)|from\s+(?:numpy|scipy)\b.*\s+as\s+(\w+)")
_IMPORTED = re.compile(r"from\s+((?:numpy|scipy)[\w.]*)\s+import\s+\(?([\w, ]+)")
_MARKED_UP = re.compile(r"(?<!`)`~?([A-Za-z_][\w.]*)(?:\(\))?`(?!`)")
_FULL_PATH = re.compile(r"(?<![\w.])(?:numpy|scipy|np)(?:\.[A-Za-z_]\w*)+")
_SEE_ALSO_NAMES = re.compile(r"(?::\w+:)?`?~?([A-Za-z_][\w.]*)`?(?:\(\))?(?:\s*,\s*|\s*$|\s+:|:(?:\s|$))")
_EXPLAINED = re.compile(r"([*\w][\w, *]*?)\s*(?::|$)")


class Item(NamedTuple):
    """One public function or class."""

    path: str
    name: str
    subpackage: str
    module: str
    docstring: str


def load_scipy_docs() -> TextGraph:
    """The graph of the installed versions' documentation, the same every time for the same versions.

    ``node_ids`` are import paths and ``titles`` bare names; ``texts`` are the name and the whole docstring;
    ``student_texts`` are the name and the docstring's summary, which is what one has of a new function. Classes with
    fewer than 20 items are left out.

    Raises:
      DataError: the docstrings have been stripped (``python -OO``).
    """
    items, names, modules, versions = documented()
    row_of = {item.path: row for row, item in enumerate(items)}
    pairs = {}
    for row, item in enumerate(items):
        for path in itertools.chain(*references(item, names)):
            if path in row_of and row_of[path] != row:
                pairs[row, row_of[path]] = None
    edges = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    classes = tuple(sorted({item.subpackage for item in items}))
    texts = [f"{item.name}\n{clean(item.docstring, modules)}" for item in items]
    return make_text_graph(
        name="scipy-docs",
        node_ids=np.array([item.path for item in items]),
        texts=texts,
        titles=[item.name for item in items],
        student_texts=[f"{item.name}. {_summary(item, modules)}".rstrip(". ") + "." for item in items],
        labels=np.array([classes.index(item.subpackage) for item in items], np.int32),
        class_names=classes,
        senders=edges[:, 0],
        receivers=edges[:, 1],
        notes=[f"documentation of {root} {version}" for root, version in versions.items()],
    )


def documented() -> tuple[list[Item], dict[str, str], frozenset[str], dict[str, str]]:
    """The items sorted by path, path by public name, the module paths, and the versions of SciPy and NumPy.

    Raises:
      DataError: the docstrings have been stripped (``python -OO``).
    """
    # Touching every public name also touches deprecated ones, whose warnings are no news to the user of this graph.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        items, names, modules = collect()
        versions = {root: importlib.import_module(root).__version__ for root in ("scipy", "numpy")}
    if not items:
        raise DataError("SciPy and NumPy have no docstrings here", mend="run Python without -OO")
    return items, names, modules, versions


def collect() -> tuple[list[Item], dict[str, str], frozenset[str]]:
    """The items sorted by path, every public path of an item with the path it goes by, and the module paths."""
    taken: dict[int, str] = {}
    alive = []
    items, names = [], {}
    modules = {"numpy", "scipy"}
    for subpackage, parts in SUBPACKAGES.items():
        modules.add(subpackage)
        for part in parts:
            module_path = f"{subpackage}.{part}" if part else subpackage
            try:
                module = importlib.import_module(module_path)
            except ImportError:  # this version has it elsewhere or not at all
                continue
            modules.add(module_path)
            for name, thing in _public(module):
                path = f"{module_path}.{name}"
                if id(thing) not in taken:
                    # Kept alive, since the id of a thing made on access could come again.
                    alive.append(thing)
                    taken[id(thing)] = path
                    docstring = inspect.cleandoc(thing.__doc__ or "")
                    items.append(Item(path, name, subpackage, module_path, docstring))
                names[path] = taken[id(thing)]
    size = Counter(item.subpackage for item in items)
    kept = [item for item in items if size[item.subpackage] >= _SMALLEST_CLASS]
    return sorted(kept), names, frozenset(modules)


def _public(module: ModuleType) -> list[tuple[str, object]]:
    """Documented public functions and classes; of several names for one thing, its own name comes first."""
    names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    found = []
    for name in sorted(set(names)):
        thing = getattr(module, name, None)
        # Modules' own test runners, and number types, whose documentation depends on the platform.
        if name == "test" or inspect.ismodule(thing) or not callable(thing):
            continue
        if isinstance(thing, type) and issubclass(thing, np.generic):
            continue
        if isinstance(thing.__doc__, str) and thing.__doc__.strip():
            found.append((name, thing))
    return sorted(found, key=lambda pair: (getattr(pair[1], "__name__", pair[0]) != pair[0], pair[0]))


def _sections(docstring: str) -> list[tuple[str, list[str]]]:
    """Heading and lines of every section; the part above the first heading has the heading ""."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    lines = docstring.split("\n")
    for i, line in enumerate(lines):
        below = lines[i + 1].strip() if i + 1 < len(lines) else ""
        if line.strip() and not line.startswith(" ") and len(below) >= 3 and set(below) == {"-"}:
            sections.append((line.strip(), []))
        elif not (line.strip() and set(line.strip()) == {"-"} and not sections[-1][1]):
            sections[-1][1].append(line)
    return sections


def references(item: Item, names: dict[str, str]) -> tuple[list[str], list[str]]:
    """Paths of the items that the docstring lists under See Also, and of those it marks up, writes out or imports."""
    own_names, listed_names = set(), []
    for heading, lines in _sections(item.docstring):
        if heading in _OWN_NAMES:
            explained = [_EXPLAINED.match(line) for line in lines if line and not line.startswith(" ")]
            own_names.update(name for match in explained if match for name in re.findall(r"\w+", match[1]))
        if heading == "See Also":
            for line in lines:
                position = 0
                while not line.startswith(" ") and (match := _SEE_ALSO_NAMES.match(line, position)):
                    listed_names.append(match[1])
                    position = match.end()
                    if ":" in match[0][match[0].rfind("`") + 1 :]:
                        break
    marked_up = [name for name in _MARKED_UP.findall(item.docstring) if name not in own_names]
    imported = [
        f"{module}.{name}"
        for module, listed in _IMPORTED.findall(item.docstring)
        for name in re.findall(r"\w+", listed)
    ]
    mentioned = [*marked_up, *_FULL_PATH.findall(item.docstring), *imported]
    see_also, mentions = (
        [path for name in dict.fromkeys(found) if (path := _resolve(name, item, names))]
        for found in (listed_names, mentioned)
    )
    return see_also, mentions


def without_see_also(docstring: str) -> str:
    """The docstring without its See Also section."""
    kept = []
    for heading, lines in _sections(docstring):
        if heading != "See Also":
            kept += [heading, "-" * len(heading), *lines] if heading else lines
    return "\n".join(kept)


def _resolve(name: str, item: Item, names: dict[str, str]) -> str | None:
    """The path that ``name`` goes by when it is mentioned in ``item``: nearest namespace first."""
    root, dot, rest = name.partition(".")
    name = _ALIASES.get(root, root) + dot + rest
    # A method leads to its class.
    shorter = [name] + ([name.rpartition(".")[0]] if dot else [])
    package = item.subpackage.partition(".")[0]
    for candidate in shorter:
        for prefix in ("", f"{item.module}.", f"{item.subpackage}.", f"{package}.", "numpy."):
            if prefix + candidate in names:
                return names[prefix + candidate]
    return None


def clean(docstring: str, modules: frozenset[str]) -> str:
    """The docstring without what spells its class out."""
    local_aliases = {name for match in _IMPORT_AS.findall(docstring) for name in match if name}
    kept = []
    for heading, lines in _sections(docstring):
        if heading == "See Also":
            continue
        kept += [heading, "-" * len(heading)] if heading else []
        for line in lines:
            if line.startswith("**Array API Standard Support**"):  # generated boilerplate up to the section's end
                break
            if "# may vary" in line:  # random numbers that some docstrings draw anew whenever they are made
                while kept and kept[-1].strip() and not kept[-1].lstrip().startswith((">>>", "...")):
                    kept.pop()
            elif not _IMPORT.match(line.strip()) and "currentmodule::" not in line:
                line = _SET.sub(lambda match: ", ".join(sorted(match[0].split(", "))), _LINK.sub("", line))
                kept.append(_PATH.sub(lambda match: _without_module(match[0], modules, local_aliases), line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def _without_module(path: str, modules: frozenset[str], local_aliases: set[str]) -> str:
    """``path`` without the module it starts with: scipy.stats.norm → norm, np.fft.fft → fft, scipy.stats → nothing."""
    parts = path.lstrip("~").split(".")
    if parts[0] in local_aliases - set(_ALIASES):
        return ".".join(parts[1:])
    parts[0] = _ALIASES.get(parts[0], parts[0])
    rooted = parts[0] in ("numpy", "scipy")
    for end in range(len(parts), 0, -1):
        prefix = ".".join(parts[:end])
        if prefix in modules or (not rooted and {f"scipy.{prefix}", f"numpy.{prefix}"} & modules):
            rest = ".".join(parts[end:] if rooted or end < len(parts) else parts[-1:])
            return _without_module(rest, modules, local_aliases) if "." in rest else rest
    return path


def _summary(item: Item, modules: frozenset[str]) -> str:
    """The first paragraph that is not the call signature which compiled functions begin with."""
    for paragraph in clean(item.docstring, modules).split("\n\n"):
        line = " ".join(paragraph.split())
        if line and not re.match(rf"{re.escape(item.name)}\s*\(", line):
            return line
    return ""
