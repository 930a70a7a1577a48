"""Weights to safetensors and back; a file that does not fit the system to the last shape is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from postclick import files
from postclick.errors import Finding, TrustError
from postclick.training.checkpoint import write_tensors

__all__ = ["load_weights", "owned", "write_weights"]

MAX_HEADER = 16 * 1024 * 1024
MAX_TENSORS = 4_096
_WHERE = "model.safetensors"


def write_weights(path: Path, model: nn.Module) -> None:
    """Write parameters and buffers as safetensors; equal weights give equal bytes."""
    with files.create(path) as handle:
        write_tensors(handle, model.state_dict())


def load_weights(model: nn.Module, data: bytes) -> None:
    """Put the tensors of `data` into `model`, which may have been built on the meta device.

    Raises
    ------
    TrustError
        ``bundle.malformed``: not safetensors, or other names, shapes or types than the system has.
    """
    _check_frame(data)
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise TrustError(Finding("bundle.malformed", f"not safetensors ({error})", _WHERE)) from error
    problems = _differences(model.state_dict(), tensors)
    if problems:
        raise TrustError(*problems)
    model.load_state_dict(tensors, strict=True, assign=True)


def _check_frame(data: bytes) -> None:
    """Refuse a header that is longer than its file or than any honest one before anything is parsed."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else -1
    if not 0 < length <= min(MAX_HEADER, len(data) - 8):
        what = f"not safetensors (header of {length} bytes in a file of {len(data)})"
        raise TrustError(Finding("bundle.malformed", what, _WHERE))
    if data.count(b'"dtype"', 8, 8 + length) > MAX_TENSORS:
        raise TrustError(Finding("bundle.malformed", f"more than {MAX_TENSORS} tensors", _WHERE))


def _differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[Finding]:
    def form(tensor: Tensor | None) -> str:
        return "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"

    return [
        Finding("bundle.malformed", f"the system has {form(wanted.get(name))}, the file {form(found.get(name))}", name)
        for name in sorted(wanted.keys() | found.keys())
        if form(wanted.get(name)) != form(found.get(name))
    ]


def owned(model: nn.Module) -> bool:
    """Tell whether every tensor of `model` holds numbers (none was left on the meta device)."""
    return not any(tensor.device == torch.device("meta") for tensor in (*model.parameters(), *model.buffers()))
