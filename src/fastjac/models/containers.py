"""Named arrays in the bytes of .npz and .safetensors files, read without trust in them."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

# Trained weights hardly compress; a file that unpacks to more than this many times its size is a bomb.
_MAX_UNPACKING = 100

_SAFETENSORS_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
}


def read_npz(data: bytes) -> tuple[Arrays, str | None]:
    """Return the arrays of an ``.npz`` file, and the text that fastjac stored with them, if it did."""
    arrays: Arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_unpacked_size(archive, len(data))
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"it has two arrays {name!r}")
            arrays[name] = _npy(archive.read(entry), name)
    return arrays, str(arrays.pop("fastjac")) if "fastjac" in arrays else None


def write_npz(arrays: Arrays, text: str) -> bytes:
    """Return an uncompressed ``.npz`` file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays, fastjac=np.array(text))  # type: ignore[arg-type]
    return stream.getvalue()


def read_safetensors(data: bytes) -> tuple[Arrays, str | None]:
    """Return the arrays of a ``.safetensors`` file, and the text that fastjac stored with them, if it did."""
    arrays, metadata = _safetensors(data)
    text = metadata.get("fastjac")
    if text is not None and metadata.get("fastjac_crc32") != _checksum(arrays, text):
        raise ValueError("its weights do not have the checksum that fastjac.save wrote")
    return arrays, text


def write_safetensors(arrays: Arrays, text: str) -> bytes:
    """Return a ``.safetensors`` file, little-endian as the format asks."""
    arrays = {name: array.astype(array.dtype.newbyteorder("<"), copy=False) for name, array in arrays.items()}
    header: dict[str, Any] = {
        "__metadata__": {"fastjac": text, "fastjac_crc32": _checksum(arrays, text)},
    }
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        kind = "F32" if array.itemsize == 4 else "F64"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    contents = (array.tobytes() for array in arrays.values())
    return b"".join((len(encoded).to_bytes(8, "little"), encoded, *contents))


def check_unpacked_size(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError if a zip file of ``size`` bytes says that it unpacks to far more."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _MAX_UNPACKING * size:
        raise ValueError(f"it has {size} bytes, but would unpack to {unpacked}")


def _npy(data: bytes, name: str) -> NDArray[Any]:
    """Return the array in one ``.npy`` entry, whose shape is checked before anything is made of it."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"array {name!r} has npy version {version}, expected (1, 0) or (2, 0)")
    if dtype.hasobject:
        raise ValueError(f"array {name!r} holds Python objects, which only unpickling could read")
    _check_size(name, shape, dtype, len(data) - stream.tell())
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")


def _check_size(name: str, shape: Sequence[int], dtype: np.dtype[Any], size: int) -> None:
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"array {name!r} of shape {tuple(shape)} and dtype {dtype} has {size} bytes")


def _safetensors(data: bytes) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file; its bytes must be used exactly once."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError(f"its header should have {size} bytes, but the file has {len(data)}")
    header = json.loads(data[8 : 8 + size], object_pairs_hook=_unique)
    metadata = header.pop("__metadata__", {})
    body = memoryview(data)[8 + size :]
    arrays: Arrays = {}
    used = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != used or not begin <= end <= len(body):
            raise ValueError(f"tensor {name!r} is at bytes {begin} to {end} of {len(body)}, expected {used}")
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise ValueError(f"tensor {name!r} has dtype {entry['dtype']}, which fastjac does not read")
        dtype = np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]])
        _check_size(name, entry["shape"], dtype, end - begin)
        array = np.frombuffer(body[begin:end], dtype).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array
        used = end
    if used != len(body):
        raise ValueError(f"its tensors have {used} bytes, but the file has {len(body)} for them")
    return arrays, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has a name twice")
    return found


def _checksum(arrays: Arrays, text: str) -> str:
    """Return the CRC-32 of everything that makes the network, which safetensors itself does not keep."""
    crc = zlib.crc32(text.encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.tobytes(), crc)
    return f"{crc:08x}"
