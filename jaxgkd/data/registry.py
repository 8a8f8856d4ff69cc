"""Finds a data set by name or folder, for the recipe that asks for it, and counts what is in it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.data.brain_sets import brain_set_names, find_brain_set, load_brain_set
from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.molecule_sets import KNOWN, find_molecule_file, load_molecule_set, molecule_names
from jaxgkd.data.published import PUBLISHED
from jaxgkd.data.rdkit_molecules import load_chembl_activities, load_egfr
from jaxgkd.data.scipy_docs import load_scipy_docs
from jaxgkd.data.scipy_hetero import load_scipy_hetero
from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.data.text_graphs import TextGraph, load_text_graph
from jaxgkd.errors import ConfigError
from jaxgkd.training.compilation import cache_folder

DATA_VARIABLE = "JAXGKD_DATA"


@dataclass(frozen=True)
class _Source:
    """Where a recipe's data comes from.

    Attributes:
      default: the name that is meant when none is given.
      embedded: what is built in.
      subfolder: where in the data folder the others lie.
      known: names that the data folder may hold; others there are found too.
      read: reads one of them, or what the user gives a path of.
      find: where a name lies in a folder, or None; by default a folder of that name.
      found: the names that lie in a folder; by default all folders.
    """

    default: str
    embedded: Mapping[str, Callable[[], Any]]
    subfolder: str
    known: tuple[str, ...]
    read: Callable[..., Any]
    find: Callable[[Path, str], Path | None] = lambda folder, name: folder / name if (folder / name).is_dir() else None
    found: Callable[[Path], set[str]] = lambda folder: {path.name for path in folder.iterdir() if path.is_dir()}


def _molecules(default: str) -> _Source:
    return _Source(
        default=default,
        embedded={"egfr": load_egfr, "chembl2321810": load_chembl_activities},
        subfolder="molecules",
        known=tuple(KNOWN),
        read=load_molecule_set,
        find=find_molecule_file,
        found=molecule_names,
    )


_SOURCES = {
    "lingugkd": _Source(
        default="scipy-docs",
        embedded={"scipy-docs": load_scipy_docs},
        subfolder="text",
        known=("cora", "wikispeedia", "pubmed_graph"),
        read=load_text_graph,
    ),
    "ccmd": _molecules(default="egfr"),
    "gallon": _molecules(default="chembl2321810"),
    "lmgnn": _Source(
        default="scipy-docs",
        embedded={"scipy-docs": load_scipy_hetero},
        subfolder="hetero",
        known=("imdb", "wikispeedia"),
        read=load_hetero_graph,
    ),
    "bleg": _Source(
        default="simulated",
        embedded={"simulated": simulate_brains},
        subfolder="brain",
        known=("abide",),
        read=load_brain_set,
        find=find_brain_set,
        found=brain_set_names,
    ),
}


def names(recipe: str) -> tuple[str, ...]:
    """Names that ``load`` takes for ``recipe``: embedded data sets first, then those of the data folder."""
    source = _source(recipe)
    return (*source.embedded, *source.known, *sorted(at_hand(recipe).keys() - set(source.known)))


def embedded(recipe: str) -> dict[str, bool]:
    """Names of the data sets that are built in, and whether each is the one that is meant when none is given."""
    source = _source(recipe)
    return {name: name == source.default for name in source.embedded}


def at_hand(recipe: str) -> dict[str, Path]:
    """Names of the data sets in the data folder and among those fetched, and the folder each is found in."""
    source = _source(recipe)
    found: dict[str, Path] = {}
    for folder in _data_folders(source):
        if folder.is_dir():
            found = dict.fromkeys(sorted(source.found(folder)), folder) | found
    return found


def fetched_folder() -> Path:
    """Where ``jaxgkd data fetch`` puts data sets: ``data`` in the user's cache, laid out as JAXGKD_DATA is."""
    return cache_folder() / "data"


def subfolder(recipe: str) -> str:
    """Where in a data folder the data sets of a recipe lie."""
    return _source(recipe).subfolder


def column_options(text_columns: Sequence[str], label: str) -> dict[str, Any]:
    """Options of `load` for the columns a user named; defaults are left out, since embedded data sets take no options.

    Args:
      text_columns: columns to read as text, none for the usual ones.
      label: column of the classes.
    """
    options: dict[str, Any] = {} if label == "label" else {"label": label}
    return options | ({"text_columns": tuple(text_columns)} if text_columns else {})


def load(name_or_path: str | os.PathLike[str] | None = None, *, recipe: str, **options: Any) -> Any:
    """The data set ``name_or_path`` in the form that ``recipe`` works on.

    A name without a slash is looked up among the embedded data sets, in the data folder that the environment variable
    JAXGKD_DATA names, and among those that ``jaxgkd data fetch`` brought; anything else, or a name that is only found
    here, is read as a path.

    Args:
      name_or_path: None gives the recipe's default.
      recipe: for lingugkd, a ``TextGraph``; for ccmd and gallon, ``Molecules``; for bleg, ``Brains``.
      **options: passed on to the reader of files and folders; embedded data sets take none.

    Raises:
      ConfigError: the recipe or the name is not known, JAXGKD_DATA is not set, or an option does not apply.
      DataError: the data cannot be used.
    """
    known = _source(recipe)
    found = source(known.default if name_or_path is None else name_or_path, recipe=recipe)
    if isinstance(found, Path):
        return known.read(found, **options)
    if options:
        mend = f"leave out {', '.join(sorted(options))}"
        raise ConfigError(f"the embedded data set '{found}' takes no options", mend=mend)
    return known.embedded[found]()


def source(name: str | os.PathLike[str], *, recipe: str) -> Path | str:
    """Where a data set lies, looked up as `load` does, or its name where it is embedded.

    Raises:
      ConfigError: the recipe or the name is not known, or JAXGKD_DATA is not set.
    """
    known = _source(recipe)
    if isinstance(name, str) and not any(mark in name for mark in ("/", os.sep)) and name not in ("", ".", "..", "~"):
        if name in known.embedded:
            return name
        for folder in _data_folders(known):
            if folder.is_dir() and (path := known.find(folder, name)) is not None:
                return path
        if not Path(name).exists():
            raise _not_found(name, recipe, known)
    return Path(name).expanduser()


def describe(graph: TextGraph) -> dict[str, Any]:
    """Counts for a report.

    ``homophily`` is the share of linked pairs, each counted once whatever its direction, that share a class, among the
    pairs of which both are labelled (None where there are none); ``mean_text_length`` is in characters.
    """
    linked = np.unique(
        np.stack([np.minimum(graph.senders, graph.receivers), np.maximum(graph.senders, graph.receivers)]), axis=1
    )
    ends = graph.labels[linked]
    ends = ends[:, (ends >= 0).all(axis=0)]
    sizes = np.bincount(graph.labels[graph.labels >= 0], minlength=len(graph.class_names))
    return {
        "name": graph.name,
        "sha256": graph.sha256,
        "nodes": graph.n_node,
        "edges": graph.n_edge,
        "linked_pairs": linked.shape[1],
        "isolated": graph.n_node - len(np.unique(linked)),
        "classes": len(graph.class_names),
        "class_sizes": dict(zip(graph.class_names, sizes.tolist(), strict=True)),
        "labelled": int(sizes.sum()),
        "homophily": float((ends[0] == ends[1]).mean()) if ends.size else None,
        "mean_text_length": float(np.mean([len(text) for text in graph.texts])) if graph.n_node else 0.0,
        "without_text": sum(not text.strip() for text in graph.texts),
        "features": graph.n_feature,
        "given_split": graph.given_split is not None,
        "notes": list(graph.notes),
    }


def _source(recipe: str) -> _Source:
    if recipe not in _SOURCES:
        raise ConfigError(f"no data is known for a recipe '{recipe}'", mend=f"use {' or '.join(_SOURCES)}")
    return _SOURCES[recipe]


def _data_folder(source: _Source) -> Path | None:
    root = os.environ.get(DATA_VARIABLE)
    return Path(root).expanduser() / source.subfolder if root else None


def _data_folders(source: _Source) -> list[Path]:
    own = _data_folder(source)
    return [*([own] if own is not None else []), fetched_folder() / source.subfolder]


def _not_found(name: str, recipe: str, source: _Source) -> ConfigError:
    folder = _data_folder(source)
    if any(each.name == name and recipe in each.recipes for each in PUBLISHED):
        place = f"{source.subfolder}/{name} of the folder that {DATA_VARIABLE} names"
        return ConfigError(
            f"the data set '{name}' is not here", mend=f"run `jaxgkd data fetch {name}`, or put it into {place}"
        )
    listed = ", ".join(names(recipe))
    if name not in source.known:
        mend = f"use one of {listed}" + ("" if folder else f", set {DATA_VARIABLE}") + ", or give a folder"
        return ConfigError(f"there is no data set '{name}' for {recipe}", mend=mend)
    if folder is None:
        what = f"the data set '{name}' is not built in, and {DATA_VARIABLE} is not set"
        return ConfigError(what, mend=f"set {DATA_VARIABLE} to the folder that holds {source.subfolder}/{name}")
    what = f"the data set '{name}' is not in {folder}"
    return ConfigError(
        what, mend=f"put it there, or set {DATA_VARIABLE} to the folder that holds {source.subfolder}/{name}"
    )
