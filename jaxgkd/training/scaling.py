"""Labels and outputs of networks in two units: that of the data, and one in which numbers lie around 0."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scale:
    """Labels with mean 0 and standard deviation 1 on the training part.

    Fields:
      mean: [t], or [n, t] where every molecule has an offset of its own; std: [t].
    """

    mean: np.ndarray
    std: np.ndarray

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """[n, t] scaled."""
        return (labels - self.mean) / self.std

    def undo(self, outputs: np.ndarray) -> np.ndarray:
        """[..., n, t] in the unit of the data."""
        return outputs * self.std + self.mean
