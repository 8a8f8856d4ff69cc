"""Reads NPZ and NPY files of numbers and text, whatever their bytes: never a pickle, never NumPy's own errors."""

import io
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from jaxgkd.data.tables import reading
from jaxgkd.errors import DataError


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file by their names, or that of an NPY file under the name "data".

    Args:
      path: the file, whose ending says which of the two it is.
      names: which arrays of an NPZ file are read, where they are there; None for all.

    Raises:
      DataError: the file cannot be read, is neither of the two, is damaged, or holds Python objects.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            # NumPy warns of headers that it mends, which damaged ones can look like.
            warnings.simplefilter("ignore")
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            if isinstance(loaded, Mapping) != (path.suffix.lower() == ".npz"):
                raise ValueError("the file is of the other kind")
            if isinstance(loaded, Mapping):
                found = {name: loaded[name] for name in loaded if names is None or name in names}
            else:
                found = {"data": loaded}
    # Bytes of any kind come in here, and NumPy answers them with nearly every type of exception.
    except Exception as error:
        what = f"is not a readable {path.suffix[1:].upper() or 'NPZ'} file of numbers or text"
        if "Object arrays" in str(error):
            what += ", it holds Python objects"
        raise DataError(what, file=path, mend="save plain arrays, or copy it again") from error
    for name, array in found.items():
        # An entry that does not begin as an array does comes back as its bytes.
        if not isinstance(array, np.ndarray):
            raise DataError("is not an array", file=path, field=name, mend="write the file with numpy.savez")
    return found
