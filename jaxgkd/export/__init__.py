"""The distilled student of a run as a program of its own: ``jaxgkd export RUN --out FOLDER``."""

from jaxgkd.export.command import Export, run

__all__ = ["Export", "run"]
