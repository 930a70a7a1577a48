"""Arrays of an artefact in a folder: one ``.npy`` file each, ``about.json``, and a manifest that vouches for all.

The folder appears whole or not at all. Equal arrays give equal bytes. Nothing in it is code: files that would need
unpickling are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.errors import DataError, Finding

__all__ = ["STAGE", "StoredArrays", "read_arrays", "write_arrays"]

STAGE = "stage"
"""Kind of the folder, as its manifest says."""
_ABOUT, _SUFFIX = "about.json", ".npy"


@dataclass(frozen=True)
class StoredArrays:
    """What a folder holds.

    Parameters
    ----------
    path
        The folder.
    hash
        Identity of its content.
    arrays
        By name; read-only views of the files.
    about
        What they are: plain values.
    """

    path: Path
    hash: str
    arrays: Mapping[str, NDArray[Any]]
    about: Mapping[str, Any]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> StoredArrays:
    """Write a folder atomically and read it back.

    Parameters
    ----------
    path
        The folder that shall appear.
    arrays
        By name: numbers, of any shape.
    about
        Plain values; no clock, host or path.

    Raises
    ------
    StorageError
        `path` exists (exit 73), or the disk fails.
    """
    with files.new_folder(path, STAGE) as scratch:
        for name, array in arrays.items():
            with files.create(scratch / f"{name}{_SUFFIX}") as handle:
                np.lib.format.write_array(handle, np.ascontiguousarray(array), allow_pickle=False)
        files.write_json(scratch / _ABOUT, dict(about))
    return read_arrays(path)


def read_arrays(path: Path) -> StoredArrays:
    """Read a folder; every file is hashed first, and arrays are mapped, not loaded.

    Raises
    ------
    InputMissingError
        Nothing there, or a folder of another kind.
    DataError
        ``data.corrupt_file``: a file differs from the manifest, or is no array.
    """
    manifest = files.read_manifest(path, STAGE)
    files.verify(path, manifest)
    names = [name.removesuffix(_SUFFIX) for name in manifest.files if name.endswith(_SUFFIX)]
    arrays = {name: _array(path / f"{name}{_SUFFIX}") for name in names}
    return StoredArrays(path, manifest.hash, arrays, files.read_json(path / _ABOUT))


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(Finding("data.corrupt_file", f"not an array of numbers ({error})", str(path))) from error
    return array
