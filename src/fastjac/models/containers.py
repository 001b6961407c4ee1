"""Named arrays in the bytes of .npz and .safetensors files. Their sizes are checked first."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.extras import needed
from fastjac.models.limits import Budget

Arrays = dict[str, NDArray[Any]]

# The header that writers of .npy files agree on; numpy.load takes more, some of it with warnings.
_NPY = re.compile(
    r"\{\s*'descr':\s*'([<>|=]?[?a-zA-Z]\d*)',\s*'fortran_order':\s*(?:True|False),"
    r"\s*'shape':\s*\(((?:(?:0|[1-9]\d*)(?:,\s*(?:0|[1-9]\d*))*)?,?\s*)\),?\s*\}\s*"
)
_MOST_NPY_HEADER = 1000
_MOST_ENTRIES = 10_000


def read_npz(data: bytes) -> tuple[Arrays, str | None]:
    """Return the arrays of an ``.npz`` file, and the text that fastjac stored with them, if it did."""
    budget = Budget(len(data))
    with open_zip(data) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                _check_npy(file.read(_MOST_NPY_HEADER), entry, budget)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
        if len(arrays) < len(archive.files):
            raise ValueError("it has two arrays of one name")
    return arrays, str(arrays.pop("fastjac")) if "fastjac" in arrays else None


def write_npz(arrays: Arrays, text: str) -> bytes:
    """Return an uncompressed ``.npz`` file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays, fastjac=np.array(text))  # type: ignore[arg-type]
    return stream.getvalue()


def read_safetensors(data: bytes) -> tuple[Arrays, str | None]:
    """Return the arrays of a ``.safetensors`` file, and the text that fastjac stored with them, if it did."""
    size = int.from_bytes(data[:8], "little")
    check_text("its header", size, len(data))
    tensors = needed("safetensors", "a .safetensors file").deserialize(data)
    arrays = {name: _array(tensor) for name, tensor in sorted(tensors, key=itemgetter(0))}
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    text = metadata.get("fastjac")
    if text is not None and metadata.get("fastjac_crc32") != _checksum(arrays, text):
        raise ValueError("its weights do not have the checksum that fastjac.save wrote")
    return arrays, text


def write_safetensors(arrays: Arrays, text: str) -> bytes:
    """Return a ``.safetensors`` file, little-endian as the format asks.

    The package would write the two entries of the metadata in random order; here the same network gives the
    same bytes.
    """
    arrays = {name: array.astype(array.dtype.newbyteorder("<"), copy=False) for name, array in arrays.items()}
    header: dict[str, Any] = {"__metadata__": {"fastjac": text, "fastjac_crc32": _checksum(arrays, text)}}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        kind = "F32" if array.itemsize == 4 else "F64"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    contents = (array.tobytes() for array in arrays.values())
    return b"".join((len(encoded).to_bytes(8, "little"), encoded, *contents))


def check_text(what: str, size: int, file_size: int) -> None:
    """Raise ValueError if JSON of ``size`` bytes is large, which takes up to 30 times as many in memory."""
    if size > 2**20 + file_size // 4:
        raise ValueError(f"{what} should have {size} bytes, which is too much for a file of {file_size}")


def open_zip(data: bytes) -> zipfile.ZipFile:
    """Return a zip file whose entries may be read to the size that its directory gives.

    Entries of other methods than deflate are unpacked whole, whatever the directory says of their size.
    """
    if data.count(b"PK\1\2") > _MOST_ENTRIES:
        raise ValueError(f"it has more than {_MOST_ENTRIES} entries")
    archive = zipfile.ZipFile(io.BytesIO(data))
    for entry in archive.infolist():
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its entry {entry.filename!r} is neither stored nor deflated")
    return archive


def _check_npy(head: bytes, entry: zipfile.ZipInfo, budget: Budget) -> None:
    """Raise ValueError unless numpy.load makes a plain array of exactly the entry's bytes."""
    name = entry.filename.removesuffix(".npy")
    start = {b"\x93NUMPY\1\0": 10, b"\x93NUMPY\2\0": 12}.get(head[:8], 0)
    end = start + int.from_bytes(head[8:start], "little")
    match = _NPY.fullmatch(str(head[start:end], "latin-1"))
    if not start or end > len(head) or not match:
        raise ValueError(f"{entry.filename!r} is not an array that numpy.save wrote")
    kind, shape = match[1], [int(size) for size in re.findall(r"\d+", match[2])]
    if "O" in kind:
        raise ValueError(f"array {name!r} holds Python objects, which only unpickling could read")
    if not re.fullmatch(r"\W?[?biufU]\d*", kind):
        raise ValueError(f"array {name!r} has dtype {kind!r}, expected real numbers")
    dtype = np.dtype(kind)
    size = entry.file_size - end
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"array {name!r} of shape {tuple(shape)} and dtype {dtype} has {size} bytes")
    budget.spend(max(math.prod(shape), size // 8))


def _array(tensor: dict[str, Any]) -> NDArray[Any]:
    """Return a tensor's array; one of no dtype that NumPy has is bytes, in a dtype that tells its name."""
    kind = tensor["dtype"]
    match = re.fullmatch(r"(BF|F|I|U)(16|32|64|8)", kind)
    if not match:
        return np.frombuffer(tensor["data"], [(kind, "u1")])
    letter = "u" if match[1] == "BF" else match[1].lower()
    array: NDArray[Any] = np.frombuffer(tensor["data"], f"<{letter}{int(match[2]) // 8}").reshape(
        tensor["shape"]
    )
    return (array.astype(np.uint32) << 16).view(np.float32) if match[1] == "BF" else array


def _checksum(arrays: Arrays, text: str) -> str:
    """Return the CRC-32 of everything that makes the network, which safetensors itself does not keep."""
    crc = zlib.crc32(text.encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.tobytes(), crc)
    return f"{crc:08x}"
