"""What a language model reads about molecules: their SMILES, a description, a list of bonds, or some of these.

The same molecule gives the same prompt, however a table or a description of it writes it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from rdkit import Chem, rdBase

from jaxgkd.data.molecule_descriptions import Missing, read_descriptions
from jaxgkd.data.molecule_texts import all_templates, structure_sentences
from jaxgkd.data.molecules import Molecules
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.training.by_value import jitted
from jaxgkd.training.timing import median_milliseconds

Part = Literal["smiles", "description", "structure"]
_TIMED = 32


class Prompts(NamedTuple):
    """One prompt a molecule.

    Fields:
      texts: [n]; descriptions: [n] what was written of each, "" where nothing was.
      whole: [n] whether the prompt has the parts it should have.
      source: who wrote the descriptions; "template" for RDKit's, None where no prompt has one.
      notes: counted facts that a report repeats.
    """

    texts: list[str]
    descriptions: list[str]
    whole: np.ndarray
    source: str | None
    notes: tuple[str, ...]


def make_prompts(
    molecules: Molecules,
    parts: Sequence[Part],
    descriptions: Path | None = None,
    missing: Missing = "smiles",
    n_labelled: int | None = None,
) -> Prompts:
    """Put the parts of every molecule's prompt together, in their order, each on lines of its own.

    Args:
      molecules: n of them.
      parts: what a prompt holds.
      descriptions: file with one JSON object a line; None for descriptions by template.
      missing: what becomes of molecules that the file does not describe, see `read_descriptions`.
      n_labelled: the first so many molecules are the data, by default all; others are only read where they have a
        description, and have an empty prompt where not.

    Raises:
      DataError: the file cannot be used.
    """
    n = len(molecules)
    n_labelled = n if n_labelled is None else n_labelled
    written, source, notes = [""] * n, None, ()
    if "description" in parts and descriptions is not None:
        found = read_descriptions(descriptions, molecules, missing=missing, n_asked=n_labelled)
        written, source, notes = found.texts, found.source, found.notes
    elif "description" in parts:
        written, source = all_templates(molecules), "template"
    # How a table writes a molecule may tell where it was taken from, and with that the answer.
    smiles = [molecules.canonical_smiles(i) for i in range(n)]
    pieces = {
        "smiles": lambda i: smiles[i],
        "description": lambda i: written[i],
        "structure": lambda i: structure_sentences(_read_again(smiles[i]) or molecules.rdkit_molecule(i)),
    }
    whole = np.array([bool(text) for text in written]) if "description" in parts else np.ones(n, bool)
    # Nothing but a missing description leaves a prompt empty; the molecule itself is all there is to say then.
    texts = [
        "\n".join(filter(None, (pieces[part](i) for part in parts))) or smiles[i] if whole[i] or i < n_labelled else ""
        for i in range(n)
    ]
    if silent := texts.count(""):
        notes = (*notes, f"The language model says nothing of {silent:,} molecules without labels or a description")
    return Prompts(texts, written, whole, source, tuple(notes))


def _read_again(smiles: str) -> Chem.Mol | None:
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles)


def milliseconds_per_prompt(encoder: TextEncoder, texts: Sequence[str], max_tokens: int) -> float:
    """What the whole language model costs a molecule: median of three passes over 32 prompts, compiled before.

    Args:
      encoder: the language model.
      texts: of which 32, evenly spread, are read at their own lengths.
      max_tokens: of a prompt.
    """
    graphdef, state = nnx.split(encoder.model)
    options = {"layers": (encoder.model.n_layers,), "pooling": encoder.pooling}
    pooled = jitted(lambda state, *batch: nnx.merge(graphdef, state).pooled_states(*batch, **options))
    rows: list[int] = np.unique(np.linspace(0, len(texts) - 1, _TIMED).astype(int)).tolist()
    batch = encoder.tokenizer.batch([texts[i] for i in rows], max_tokens=max_tokens)
    inputs = jnp.asarray(batch.input_ids), jnp.asarray(batch.attention_mask)
    return median_milliseconds(lambda: pooled(state, *inputs), passes=3) / len(rows)
