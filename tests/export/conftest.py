"""A run folder with untrained students, shared with the tests of prediction, and a process without our libraries."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

_ASKED = """
import sys
from pathlib import Path

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"flax", "jraph", "orbax", "optax", "transformers", "rdkit", "safetensors", "jaxgkd"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv[1])
import numpy as np
from load_exported import load

with np.load(sys.argv[2]) as inputs:
    np.save(sys.argv[3], load(Path(sys.argv[1]))(**inputs))
"""


@pytest.fixture
def asked_elsewhere(tmp_path) -> Callable[[Path, Mapping[str, np.ndarray]], np.ndarray]:
    """Asks an exported student in a process where jaxgkd and the libraries it needs cannot be imported."""

    def asked(folder: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
        script = tmp_path / "ask.py"
        script.write_text(_ASKED)
        words = [sys.executable, str(script), str(folder), str(tmp_path / "inputs.npz"), str(tmp_path / "said.npy")]
        subprocess.run(words, check=True, timeout=120, cwd=tmp_path)
        return np.load(tmp_path / "said.npy")

    return asked
