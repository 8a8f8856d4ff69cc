import numpy as np

from jaxgkd.data.molecules import load_molecules
from jaxgkd.data.splits import Split
from jaxgkd.recipes.gallon_examples import write_examples
from jaxgkd.recipes.gallon_texts import make_prompts
from jaxgkd.recipes.molecule_summary import Row
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.run_dir import RunDirectory


def test_a_task_that_has_no_label_where_it_is_tested_is_passed_over(tmp_path):
    (tmp_path / "two.csv").write_text("smiles,first,second\nC,1,0\nCC,0,1\nCCO,1,1\nCN,0,0\nCO,,1\nCCC,,0\n")
    molecules = load_molecules(tmp_path / "two.csv", labels=("first", "second"), root=tmp_path / "cache", workers=1)
    parts = (np.array(rows, np.int32) for rows in ([0, 1], [2, 3], [4, 5]))
    said = np.arange(12.0).reshape(1, 6, 2)
    run_dir = RunDirectory(tmp_path / "run", {}, resume=False)
    write_examples(
        run_dir,
        molecules,
        Targets.of(molecules),
        Split(*parts, name="random", seed=0),
        make_prompts(molecules, ("smiles",)),
        {"student_alone": Row(said, "alone")},
    )
    page = (tmp_path / "run" / "examples.md").read_text()
    assert "Values: second" in page and "| 0 | 11 |" in page and "| 1 | 9 |" in page
    assert {path.stem for path in (tmp_path / "run" / "examples").iterdir()} == {"4", "5"}
