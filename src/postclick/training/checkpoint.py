"""Checkpoints: data only, one folder each, whole or absent, the last two kept.

``checkpoints/step-00001234/`` holds ``tensors.safetensors`` (weights, buffers, optimiser states, best weights, random
states), ``state.json`` (counters, history, settings) and the manifest with the SHA-256 of both. The folder appears by
one rename, so a kill at any moment leaves the one before it; a folder that does not fit its manifest is passed over
with a note. Nothing in it is code, so it can be read without trusting it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from postclick import files
from postclick.errors import ConfigError, DataError, Finding, InputMissingError

__all__ = ["FORMAT", "Checkpoint", "CheckpointFolder", "write_tensors"]

FORMAT = 1
KEEP = 2
_KIND = "checkpoint"
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(handle: IO[bytes], tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` in the safetensors format, one after the other.

    The library's own writer takes a path or builds the whole file in memory; this one goes through the handle of
    `files.create` and needs the memory of one tensor, where a table takes gigabytes. Equal tensors give equal bytes.

    Parameters
    ----------
    handle
        Open for writing.
    tensors
        By name; any device, any strides.
    """
    # wide types first, so that every tensor starts at a multiple of its item size
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        entry = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    handle.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            handle.write(flat.view(torch.uint8).numpy().data)


@dataclass(frozen=True)
class Checkpoint:
    """What was read back.

    Parameters
    ----------
    step
        Optimiser steps done.
    tensors, state
        As they were saved.
    notes
        What was passed over on the way, ``ckpt.fell_back`` each.
    """

    step: int
    tensors: Mapping[str, Tensor]
    state: dict[str, Any]
    notes: tuple[Finding, ...] = ()


class CheckpointFolder:
    """The checkpoints of one run; one process at a time (the run's lock is held above).

    Parameters
    ----------
    run
        The RUN folder; ``checkpoints/`` in it is made when the first one is written.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / "checkpoints"

    def _places(self) -> list[Path]:
        """Return the folders in order, newest last."""
        return sorted(place for place in self.path.glob("step-*") if place.is_dir() and place.name[5:].isdigit())

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove all but the last two.

        A step that has its checkpoint is left alone: to replace it would take it away for a moment.

        Raises
        ------
        StorageError
            The disk failed; the checkpoints before stay as they are.
        """
        target = self.path / f"step-{step:08d}"
        if target in self._places():
            return target
        with files.new_folder(target, _KIND) as scratch:
            with files.create(scratch / _TENSORS, private=True) as handle:
                write_tensors(handle, tensors)
            text = json.dumps({"format": FORMAT, "step": step, **state}, sort_keys=True, allow_nan=False)
            files.write_bytes(scratch / _STATE, text.encode() + b"\n", private=True)
        for old in self._places()[:-KEEP]:
            files.discard(old)
        return target

    def clear(self) -> None:
        """Remove every checkpoint: a training that starts anew must not fall back to another one's."""
        if self.path.exists():
            files.discard(self.path)

    def load(self) -> Checkpoint | None:
        """Read the newest whole checkpoint; None where there is none at all.

        What a kill left half-made is removed, and damaged ones once a whole one is found.

        Raises
        ------
        DataError
            ``ckpt.corrupt``: there are some, and none is whole; names the files that differ.
        ConfigError
            ``ckpt.incompatible``: it has another format; it stays as it is.
        """
        if self.path.exists():
            files.sweep(self.path)
        problems: list[Finding] = []
        damaged: list[Path] = []
        for place in reversed(self._places()):
            try:
                tensors, state = _read(place)
            except (DataError, InputMissingError) as error:
                problems += error.findings
                damaged.append(place)
                continue
            notes = tuple(_fell_back(bad, place) for bad in damaged)
            for bad in damaged:
                files.discard(bad)
            return Checkpoint(int(state["step"]), tensors, state, notes)
        if problems:
            fix = "train anew with --force"
            what = "no checkpoint of this run is whole"
            raise DataError(Finding("ckpt.corrupt", what, str(self.path), count=len(damaged), fix=fix), *problems)
        return None


def _fell_back(bad: Path, good: Path) -> Finding:
    what = f"this checkpoint is damaged; training goes on from {good.name}"
    return Finding("ckpt.fell_back", what, str(bad))


def _read(place: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors.torch import load_file

    files.verify(place, files.read_manifest(place, _KIND))
    state: dict[str, Any] = files.read_json(place / _STATE)
    if state.get("format") != FORMAT:
        what = f"the checkpoint has format {state.get('format')!r}, this postclick reads {FORMAT}"
        fix = "resume with the version that wrote it, or train anew with --force"
        raise ConfigError(Finding("ckpt.incompatible", what, str(place / _STATE), fix=fix))
    return load_file(place / _TENSORS), state
