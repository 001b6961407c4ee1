"""The constants of an ONNX file: its tensors, those kept in files beside it, and what is computed of them."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.onnx.wire import Message

# TensorProto.DataType -> dtype; bfloat16 is the upper half of a float32.
_DTYPES = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "?",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
    16: "<u2",
}
FLOATS = (1, 10, 11, 16)
DOUBLE, _BFLOAT16 = 11, 16
_HALVES = (10, 16)


class Tensors:
    """Reads tensors, and counts what they amount to.

    A small file can name one tensor ten thousand times: all that is read together may be at most a hundred
    times the files' size.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.budget = 100 * size
        self.opened: set[str] = set()

    def read(self, tensor: Message) -> NDArray[Any]:
        """Return a tensor's array, after its shape and its bytes are found to agree."""
        kind = tensor.get("data_type", 0)
        if kind not in _DTYPES:
            raise ValueError(f"tensor {tensor.get('name', '')!r} has ONNX data type {kind}, expected numbers")
        dtype = np.dtype(_DTYPES[kind])
        shape = tensor["dims"].tolist()
        if min(shape, default=0) < 0:
            raise ValueError(f"tensor {tensor.get('name', '')!r} has shape {shape}")
        size = math.prod(shape) * dtype.itemsize
        if tensor.get("data_location", 0) == 1:
            flat: NDArray[Any] = np.frombuffer(self._external(tensor, size), dtype)
        elif "raw_data" in tensor:
            flat = _from_bytes(tensor["raw_data"], dtype)
        else:
            flat = _typed(tensor, kind, dtype)
        if flat.size != math.prod(shape):
            raise ValueError(f"tensor {tensor.get('name', '')!r} of shape {shape} has {flat.size} entries")
        self.spend(size)
        if kind == _BFLOAT16:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(flat.reshape(shape))

    def spend(self, size: int) -> None:
        """Count bytes that the files make fastjac hold."""
        self.budget -= size
        if self.budget < 0:
            raise ValueError("its weights would take more than a hundred times the size of the file")

    def _external(self, tensor: Message, size: int) -> bytes:
        """Return bytes of a regular file in the model's own folder, or below it; nothing else is opened."""
        entries = {entry.get("key"): entry.get("value", "") for entry in tensor["external_data"]}
        location = entries.get("location", "")
        parts = PurePosixPath(location).parts
        foreign = PureWindowsPath(location)
        if not parts or ".." in parts or location[0] == "/" or foreign.drive or {"\\", "\0"} & {*location}:
            raise ValueError(f"its external data is in {location!r}, expected a file in the model's folder")
        path = self.folder
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise ValueError(f"its external data {location!r} is a link: copy the file there instead")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        with open(path, "rb", opener=_open_no_links) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"its external data {location!r} is not a regular file")
            if length != size or offset < 0 or offset + length > status.st_size:
                raise ValueError(
                    f"tensor {tensor.get('name', '')!r} of {size} bytes should be {length} from {offset} on "
                    f"in {location!r}, which has {status.st_size}"
                )
            if location not in self.opened:
                self.opened.add(location)
                self.budget += 100 * status.st_size
            file.seek(offset)
            return file.read(length)


def _open_no_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _from_bytes(data: memoryview, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise ValueError(f"a tensor of {dtype} has {len(data)} bytes")
    return np.frombuffer(data, dtype)


def _typed(tensor: Message, kind: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the entries that are written one by one, in the field that the data type asks for."""
    field = {1: "float_data", 11: "double_data", 7: "int64_data"}.get(kind, "int32_data")
    values: NDArray[Any] = tensor[field]
    return values.astype(np.uint16).view(dtype) if kind in _HALVES else values.astype(dtype)


def computed(op: str, inputs: list[NDArray[Any]], attributes: Message) -> NDArray[Any] | None:
    """Return what a node makes of constants, or None if it is not one that exporters leave in a file."""
    first = inputs[0]
    if op == "Identity":
        return first
    if op == "Cast":
        kind = attributes.get("to")
        return first.astype(_DTYPES[kind]) if kind in _DTYPES and kind != _BFLOAT16 else None
    if op == "Sqrt":
        return np.asarray(np.sqrt(first))
    if op == "Transpose":
        axes = attributes.get("perm")
        return np.transpose(first, None if axes is None else axes.tolist())
    if op == "Concat":
        return np.concatenate(inputs, attributes["axis"])
    if op == "Gather" and first.ndim == 1:
        return np.asarray(first[inputs[1].astype(np.int64)])
    if op == "Unsqueeze" or op == "Squeeze":
        axes = inputs[1] if len(inputs) > 1 else attributes.get("axes")
        places = None if axes is None else tuple(np.ravel(axes).tolist())
        return np.squeeze(first, places) if op == "Squeeze" else np.expand_dims(first, places or ())
    return None
