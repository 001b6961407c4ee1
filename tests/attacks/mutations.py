"""Damages bytes: anywhere, and inside of archives and headers, whose checksums and sizes then fit again."""

import io
import re
import warnings
import zipfile

NUMBERS = [0, 1, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
TEXTS = [
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"99999999999999999999",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"1.5",
]


def _place(rng, size):
    """Return a place in so many bytes; headers are at the start, directories at the end."""
    kind = rng.random()
    low, high = (
        (0, min(size, 200)) if kind < 0.25 else (max(size - 200, 0), size) if kind < 0.5 else (0, size)
    )
    return int(rng.integers(low, high + 1))


def _chunk(rng, data):
    start = _place(rng, len(data))
    return start, start + int(2 ** rng.uniform(0, 8))


def _flip(rng, data):
    for _ in range(int(rng.integers(1, 4))):
        if data:
            data[_place(rng, len(data) - 1)] ^= 1 << int(rng.integers(8))


def _overwrite(rng, data):
    start, stop = _chunk(rng, data)
    size = len(data[start:stop])
    data[start:stop] = (
        rng.bytes(size) if rng.random() < 0.5 else bytes([int(rng.choice([0, 255, 32]))]) * size
    )


def _truncate(rng, data):
    del data[_place(rng, len(data)) :]


def _insert(rng, data):
    start, stop = _chunk(rng, data)
    data[start:start] = rng.bytes(stop - start)


def _delete(rng, data):
    start, stop = _chunk(rng, data)
    del data[start:stop]


def _duplicate(rng, data):
    start, stop = _chunk(rng, data)
    place = stop if rng.random() < 0.5 else _place(rng, len(data))
    data[place:place] = data[start:stop] * int(rng.choice([1, 1, 2, 10, 100]))


def _move(rng, data):
    start, stop = _chunk(rng, data)
    place = _place(rng, len(data))
    data[place : place + stop - start] = data[start:stop]


def _number(rng, data):
    size, place = int(rng.choice([1, 2, 4, 8])), _place(rng, len(data))
    number = int(NUMBERS[rng.integers(len(NUMBERS))]) % 256**size
    data[place : place + size] = number.to_bytes(size, "little")


def _text(rng, data):
    """Put something else for a number or a word of a text."""
    found = list(re.finditer(rb'-?\d[\d.e+-]*|"[^"]*"|null|true|false', data))
    if found:
        match = found[rng.integers(len(found))]
        other = found[rng.integers(len(found))][0] if rng.random() < 0.3 else TEXTS[rng.integers(len(TEXTS))]
        data[match.start() : match.end()] = other


_KINDS = [_flip, _flip, _overwrite, _truncate, _insert, _delete, _duplicate, _move, _number, _text, _text]


def _damaged(rng, data, most=3):
    data = bytearray(data)
    for _ in range(int(rng.integers(1, most + 1))):
        _KINDS[rng.integers(len(_KINDS))](rng, data)
    return bytes(data)


def _damaged_archive(rng, data):
    """Return an archive of the same entries, some of them damaged, missing, doubled or of another name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [[entry.filename, archive.read(entry)] for entry in archive.infolist()]
    for _ in range(int(rng.integers(1, 3))):
        at, kind = int(rng.integers(len(entries))), rng.random()
        if kind < 0.85:
            entries[at][1] = _damaged(rng, entries[at][1])
        elif kind < 0.9 and len(entries) > 1:
            del entries[at]
        elif kind < 0.95:
            entries.append([entries[at][0] + "x", entries[at][1]])
        else:
            entries[at][0] = str(_damaged(rng, entries[at][0].encode()).replace(b"\0", b""), "latin-1") or "x"
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Two entries may have one name.
        for name, contents in entries:
            archive.writestr(name, contents)
    return stream.getvalue()


def _damaged_header(rng, data):
    """Return a .safetensors file with a damaged header of the size that it tells."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = _damaged(rng, data[8:end])
    return len(header).to_bytes(8, "little") + header + data[end:]


def mutated(rng, suffix, data):
    """Return damaged bytes of a file."""
    if rng.random() < 0.6:
        if suffix in (".npz", ".keras"):
            return _damaged_archive(rng, data)
        if suffix == ".safetensors":
            return _damaged_header(rng, data)
    return _damaged(rng, data)
