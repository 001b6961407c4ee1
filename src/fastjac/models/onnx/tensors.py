"""The constants of an ONNX file: its tensors, and tensors in files beside it."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.limits import Budget

# TensorProto.DataType: the floats, and all numbers; bfloat16 is 16, double is 11.
FLOATS = (1, 10, 11, 16)
NUMBERS = (*FLOATS, 2, 3, 4, 5, 6, 7, 9, 12, 13)
DOUBLE, _BFLOAT16, _EXTERNAL = 11, 16, 1


class Tensors:
    """Reads tensors on demand, and counts their numbers.

    Attributes
    ----------
    size : int
        Bytes of the model's file, and of the files with its tensors.
    budget : Budget
        Twice that of the weights, because weights in half precision are read and then cast.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.budget = Budget(2 * size)
        self.opened: set[str] = set()

    def read(self, tensor: Any) -> NDArray[Any]:
        """Return a TensorProto's array, after its shape and its bytes are found to agree."""
        from onnx import helper, numpy_helper

        kind, shape, name = tensor.data_type, list(tensor.dims), tensor.name
        if kind not in NUMBERS:
            raise ValueError(f"tensor {name!r} has ONNX data type {kind}, expected numbers")
        if min(shape, default=0) < 0:
            raise ValueError(f"tensor {name!r} has shape {shape}")
        size = math.prod(shape)
        itemsize = 2 if kind == _BFLOAT16 else helper.tensor_dtype_to_np_dtype(kind).itemsize
        if tensor.data_location == _EXTERNAL:
            data = self._external(tensor, size * itemsize)
            tensor = type(tensor)(dims=shape, data_type=kind, raw_data=data)
        if tensor.HasField("raw_data"):
            held, over = divmod(len(tensor.raw_data), itemsize)
        else:
            held, over = len(getattr(tensor, helper.tensor_dtype_to_field(kind))), 0
        if held != size or over:
            raise ValueError(f"tensor {name!r} of shape {shape} has {held} entries")
        self.budget.spend(size)
        return np.asarray(numpy_helper.to_array(tensor))

    def _external(self, tensor: Any, size: int) -> bytes:
        """Return bytes of a regular file in the model's own folder, or below it; nothing else is opened."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
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
        offset, length = _number(entries, "offset", 0), _number(entries, "length", size)
        with open(path, "rb", opener=_open_no_links) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"its external data {location!r} is not a regular file")
            if status.st_nlink > 1:
                raise ValueError(
                    f"its external data {location!r} has other names too: copy the file there instead"
                )
            if length != size or offset + length > status.st_size:
                raise ValueError(
                    f"tensor {tensor.name!r} of {size} bytes should be {length} from {offset} on "
                    f"in {location!r}, which has {status.st_size}"
                )
            if location not in self.opened:
                self.opened.add(location)
                self.size += status.st_size
                self.budget.left += status.st_size
            file.seek(offset)
            return file.read(length)


def _number(entries: Mapping[str, str], key: str, default: int) -> int:
    """Return a number that is written in the ten digits alone."""
    text = entries.get(key, str(default))
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError(f"its external data has the {key} {text[:50]!r}, expected a number")
    return int(text)


def _open_no_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
