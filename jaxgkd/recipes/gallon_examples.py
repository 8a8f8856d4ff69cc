"""A page of test molecules: the drawing, what the language model read, the label, and what every row says."""

from collections.abc import Mapping

import numpy as np

from jaxgkd.data.molecule_drawings import png
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.errors import ConfigError
from jaxgkd.recipes.gallon_texts import Prompts
from jaxgkd.recipes.molecule_summary import Row
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.whole_file import write_whole

_EXAMPLES = 6
_LETTERS = 700


def write_examples(
    run_dir: RunDirectory,
    molecules: Molecules,
    targets: Targets,
    split: Split,
    prompts: Prompts,
    rows: Mapping[str, Row],
) -> None:
    """Write ``examples.md`` and ``examples/*.png``.

    The molecules are spread over the test part in order of their label, of the first task that has any there, so that
    no choice is made by how well any row does on them.

    Args:
      run_dir: the folder of the run.
      molecules: all; targets: of these; split: of the first seed.
      prompts: what was read of them.
      rows: whose predictions of the first seed stand beside the label.
    """
    known = ~np.isnan(targets.labels[split.test])
    task = int(np.argmax(known.any(axis=0)))
    values_of = f"Values: {molecules.tasks[task].name}, split of seed 0."
    tested = split.test[known[:, task]]
    ordered = tested[np.argsort(targets.labels[tested, task], kind="stable")]
    chosen = ordered[np.unique(np.linspace(0, len(ordered) - 1, _EXAMPLES).astype(int))]
    who = f"Descriptions: {prompts.source}." if prompts.source else "No descriptions were read."
    folder = run_dir.path / "examples"
    folder.mkdir(exist_ok=True)
    lines = [f"# Test molecules of {molecules.name}", "", f"{who} {values_of}", ""]
    for i in chosen.tolist():
        try:
            write_whole(folder / f"{i}.png", png(molecules.rdkit_molecule(i)))
            lines += [f"![molecule {i}](examples/{i}.png)", ""]
        except ConfigError as error:
            lines += [f"(no drawing: {error})", ""]
        head = ["label", *(row.label for row in rows.values())]
        values = [targets.labels[i, task], *(row.predictions[0, i, task] for row in rows.values())]
        lines += ["| " + " | ".join(head) + " |", "|" + "--:|" * len(head)]
        lines += ["| " + " | ".join(f"{value:.3g}" for value in values) + " |", ""]
        text = prompts.texts[i]
        shown = text if len(text) <= _LETTERS else text[:_LETTERS].rsplit(" ", 1)[0] + " …"
        lines += ["```text", shown.replace("```", "'''"), "```", ""]
    run_dir.write_text("examples.md", "\n".join(lines))
