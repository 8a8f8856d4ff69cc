"""The student that a run keeps, read for whoever predicts with it or exports it."""

from pathlib import Path

from jaxgkd.errors import ConfigError
from jaxgkd.training.run_dir import read_json
from jaxgkd.training.student_folder import KeptStudent, read_student


def read_kept(run: Path) -> KeptStudent:
    """`read_student`, which also says so where the recipe of a run keeps none.

    Raises:
      ConfigError: the folder is no finished run, or keeps no student.
      CheckpointError: a file of the student is missing or damaged.
    """
    if (run / "config.json").is_file():
        found = read_json(run / "config.json")
        if isinstance(found, dict) and found.get("recipe") == "lmgnn":
            what = "runs of lmgnn keep no student that new data can be asked of"
            raise ConfigError(what, file=run, mend="give a run of lingugkd, gallon, ccmd or bleg")
    return read_student(run)
