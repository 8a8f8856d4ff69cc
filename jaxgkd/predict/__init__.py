"""New items through the distilled student of a run: ``jaxgkd predict RUN --data PATH --out FILE``."""

from jaxgkd.predict.command import Predict, run

__all__ = ["Predict", "run"]
