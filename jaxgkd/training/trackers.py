"""Curves, results and figures of a run for TensorBoard and for Weights & Biases, beside the files it leaves anyway.

While a run trains, a tracker hears of the progress: the mean validation score of the step that is underway. Everything
else follows when the run is finished, read from its folder, since all seeds of a row train in one compiled program and
their curves are known at its end. Each tracker needs a package of its own, which is imported when one is asked for.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from jaxgkd.errors import ConfigError
from jaxgkd.training.statistics import mean_std


class Tracker(Protocol):
    """What hears of a run."""

    def progress(self, title: str, epoch: int, score: float) -> None:
        """A step of the run has come this far."""
        ...

    def finished(self, folder: Path) -> None:
        """The run is over, its report is written; nothing is heard after this."""
        ...

    def abandoned(self) -> None:
        """The run ended early."""
        ...


class TensorBoard:
    """Event files by tensorboardX, which needs neither TensorFlow nor PyTorch; ``tensorboard --logdir`` shows them.

    Every row and seed is a run of its own in TensorBoard, so that a chart holds one metric of all of them.
    """

    def __init__(self, folder: Path):
        """Write below ``folder``, from the first progress on.

        Raises:
          ConfigError: the package is not installed.
        """
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboardX", "tensorboard") from error
        self._folder, self._writer = folder, SummaryWriter

    @cached_property
    def _main(self) -> Any:
        # A run that is refused leaves nothing behind, and a writer makes its files at once.
        return self._writer(str(self._folder))

    def progress(self, title: str, epoch: int, score: float) -> None:
        """A point of the curve ``progress/<title>``."""
        self._main.add_scalar(f"progress/{title}", score, epoch)

    def finished(self, folder: Path) -> None:
        """Write the curves of all seeds, the mean results, the report and its figures."""
        import matplotlib.image

        for (row, repeat), lines in curves(folder).items():
            with self._writer(str(self._folder / f"{row}, {repeat}")) as writer:
                for line in lines:
                    for field, value in line["values"].items():
                        writer.add_scalar(field, value, line["epoch"])
        for name, value in results(folder).items():
            self._main.add_scalar(f"result/{name}", value, 0)
        for path in sorted((folder / "figures").glob("*.png")):
            self._main.add_image(path.stem, matplotlib.image.imread(path)[..., :3], 0, dataformats="HWC")
        if (report := folder / "report.md").is_file():
            self._main.add_text("report", report.read_text(encoding="utf-8"), 0)
        self._main.close()

    def abandoned(self) -> None:
        """Keep what was heard."""
        if "_main" in self.__dict__:
            self._main.close()


class WeightsAndBiases:
    """A run of Weights & Biases. Its own environment decides where that goes: ``WANDB_MODE=offline`` keeps it here.

    The key is read by the package alone (``WANDB_API_KEY``, or what ``wandb login`` has kept) and is never seen here.
    """

    def __init__(self, folder: Path, name: str):
        """Begin a run called ``name`` whose files lie below ``folder``.

        Raises:
          ConfigError: the package is not installed, or it cannot start.
        """
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb", "wandb") from error
        self._wandb = wandb
        # Neither the program's text and its repository nor what it prints is anybody's business.
        settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
        project = os.environ.get("WANDB_PROJECT", "jaxgkd")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(project=project, name=name, dir=str(folder), settings=settings)
        except wandb.Error as error:
            what = f"Weights & Biases cannot start ({type(error).__name__})"
            mend = "set WANDB_API_KEY or log in with `wandb login`, or set WANDB_MODE=offline"
            raise ConfigError(what, field="--log", mend=mend) from error

    def progress(self, title: str, epoch: int, score: float) -> None:
        """A point of the curve ``progress/<title>``."""
        self._run.log({f"progress/{title}": score, "progress/epoch": epoch})

    def finished(self, folder: Path) -> None:
        """Log the settings, the curves of all seeds, the mean results and the figures."""
        if (config := folder / "config.json").is_file():
            self._run.config.update(json.loads(config.read_text(encoding="utf-8")), allow_val_change=True)
        by_epoch: dict[int, dict[str, float]] = defaultdict(dict)
        for (row, repeat), lines in curves(folder).items():
            for line in lines:
                named = {f"{field}/{row}, {repeat}": value for field, value in line["values"].items()}
                by_epoch[line["epoch"]] |= named
        self._run.define_metric("epoch")
        for name in sorted({name for values in by_epoch.values() for name in values}):
            self._run.define_metric(name, step_metric="epoch")
        for epoch in sorted(by_epoch):
            self._run.log({"epoch": epoch, **by_epoch[epoch]})
        figures = sorted((folder / "figures").glob("*.png"))
        if figures:
            self._run.log({f"figures/{path.stem}": self._wandb.Image(str(path)) for path in figures})
        self._run.summary.update({f"result/{name}": value for name, value in results(folder).items()})
        self._run.finish()

    def abandoned(self) -> None:
        """Mark the run as failed."""
        self._run.finish(exit_code=1)


def curves(folder: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The lines of a run's ``metrics.jsonl`` by row and repeat ("seed 3" or "seed 3, fold 1"), in order of epochs.

    Each has its ``epoch`` and the numbers that were logged as ``values``; of two lines of an epoch the later counts.
    """
    found: dict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(dict)
    for line in _lines(folder / "metrics.jsonl"):
        repeat = f"seed {line['seed']}" + (f", fold {line['fold']}" if "fold" in line else "")
        values = {
            name: float(value)
            for name, value in line.items()
            if name not in ("seed", "fold", "epoch") and isinstance(value, int | float) and not isinstance(value, bool)
        }
        found[str(line["row"]), repeat][int(line["epoch"])] = values
    return {
        key: [{"epoch": epoch, "values": values} for epoch, values in sorted(by_epoch.items())]
        for key, by_epoch in found.items()
    }


def results(folder: Path) -> Mapping[str, float]:
    """The mean test value of every row of a run's ``summary.json``, and the difference of the students."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    means = {row: mean_std(found["test"])[0] for row, found in summary["results"].items() if "test" in found}
    difference = summary["difference"]
    named = {f"test {summary['metric']} of {row}": mean for row, mean in means.items()}
    named |= {"distilled minus alone": difference["mean"], "p-value": difference["p_value"]}
    return {name: float(value) for name, value in named.items() if value is not None and value == value}


def _lines(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.is_file():
        yield from (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())


def _missing(package: str, extra: str) -> ConfigError:
    return ConfigError(f"{package} is not installed", field="--log", mend=f"run pip install 'jaxgkd[{extra}]'")
