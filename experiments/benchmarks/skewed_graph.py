"""A random graph whose nodes differ in degree as those of citation and web graphs do."""

import numpy as np


def skewed_edges(n_node: int, n_edge: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Senders and receivers [n_edge], both drawn with probabilities that fall with rank to the power of 0.8."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, n_node + 1) ** -0.8
    draw = lambda: rng.permutation(n_node)[rng.choice(n_node, n_edge, p=weights / weights.sum())]  # noqa: E731
    return draw().astype(np.int64), draw().astype(np.int64)
