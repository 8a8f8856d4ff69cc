"""Data sets and how they are divided.

- ``text_graphs``: graphs whose nodes carry text, from a folder of CSV or Parquet files, checked row by row
  (``tables`` reads the files, ``class_labels`` the classes, ``node_features`` given features).
- ``scipy_docs``: such a graph made from the documentation of the installed SciPy and NumPy.
- ``splits``: training, validation and test parts; few-shot, inductive, folds.
- ``bag_of_words``: TF-IDF features for students.
- ``registry``: data sets by name, and counts of what is in them (``graph_counts`` and its like say more).
- ``fetch``: public data sets from their homes (``published`` lists them, ``download`` and ``archives`` trust nothing
  that they send), ``folders``: graphs and molecules written as folders, ``converters``: data of other libraries.
- ``molecules``: molecules from tables of SMILES and SD files, ``conformers``: their shapes, ``molecule_splits``: how
  they are divided, ``rdkit_molecules``: those that come with RDKit. These load RDKit, so they are imported by name.
"""

from jaxgkd.data.bag_of_words import Vocabulary
from jaxgkd.data.registry import describe, load, names
from jaxgkd.data.scipy_docs import load_scipy_docs
from jaxgkd.data.splits import (
    Split,
    few_shot,
    load_split,
    make_split,
    save_split,
    stratified_folds,
    training_edges,
)
from jaxgkd.data.text_graphs import TextGraph, load_text_graph, make_text_graph

__all__ = [
    "Split",
    "TextGraph",
    "Vocabulary",
    "describe",
    "few_shot",
    "load",
    "load_scipy_docs",
    "load_split",
    "load_text_graph",
    "make_split",
    "make_text_graph",
    "names",
    "save_split",
    "stratified_folds",
    "training_edges",
]
