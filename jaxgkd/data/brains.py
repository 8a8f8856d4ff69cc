"""A cohort of brain scans: one matrix of region-to-region connectivity a subject, labels, sites and region names."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Brains:
    """Subjects in the order of their file.

    Fields:
      name: of the data set, for tables.
      sha256: of everything that was read.
      subjects: [n] ids.
      connectivity: [n, r, r] float32, symmetric, 1 on the diagonal; correlations unless ``kind`` says otherwise.
      kind: of connectivity ("correlation", …).
      labels: [n] int32 class numbers, −1 where there is none.
      class_names: [c].
      sites: [n] int32 numbers into ``site_names``; one site where none is given.
      site_names: names of the sites.
      regions: [r] names.
      networks: [r] the network each region belongs to, "" where the atlas names none.
      covariates: name → [n] float32, NaN where missing (age in years; sex 0 and 1).
      series: [n] arrays [time, r] where series were read, else None.
      simulated: True for a cohort that no scanner has seen.
      notes: what was left out or mended, one sentence each.
    """

    name: str
    sha256: str
    subjects: tuple[str, ...]
    connectivity: np.ndarray
    kind: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    sites: np.ndarray
    site_names: tuple[str, ...]
    regions: tuple[str, ...]
    networks: tuple[str, ...]
    covariates: dict[str, np.ndarray]
    series: tuple[np.ndarray, ...] | None = None
    simulated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def n_subjects(self) -> int:
        """Number of subjects n."""
        return len(self.subjects)

    @property
    def n_regions(self) -> int:
        """Number of regions r."""
        return len(self.regions)

    @cached_property
    def upper(self) -> np.ndarray:
        """[n, r (r − 1) / 2] entries above the diagonal, row by row."""
        return self.connectivity[:, *np.triu_indices(self.n_regions, 1)]
