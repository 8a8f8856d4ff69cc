"""The student that a run keeps, read for whoever predicts with it or exports it."""

from pathlib import Path

from jaxgkd.errors import ConfigError
from jaxgkd.training.run_dir import read_json
from jaxgkd.training.student_folder import FOLDER, KeptStudent, read_student


def read_kept(run: Path) -> KeptStudent:
    """`read_student`, which also says so where the recipe of a run keeps none.

    Raises:
      ConfigError: the folder is no finished run, or keeps no student.
      CheckpointError: a file of the student is missing or damaged.
    """
    if (run / "config.json").is_file():
        found = read_json(run / "config.json")
        finished, kept = (run / "summary.json").is_file(), (run / FOLDER).is_dir()
        if isinstance(found, dict) and found.get("recipe") == "lmgnn" and finished and not kept:
            what = "a run of lmgnn keeps its student where that answers for nodes; this one asked for edges"
            raise ConfigError(what, file=run, mend="give a run whose --task is about nodes")
    return read_student(run)
