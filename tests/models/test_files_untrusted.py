"""Files that are damaged or hostile: load refuses them, or gives the network that was saved."""

import io
import json
import pathlib
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac.models.files import ModelError, load, save
from support.networks_in_files import NET, entry, safetensors, same

SUFFIXES = (".npz", ".safetensors")
DATA = pathlib.Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for suffix in SUFFIXES:
        save(NET, folder / f"m{suffix}")
    return {suffix: (folder / f"m{suffix}").read_bytes() for suffix in SUFFIXES}


def load_bytes(data, path):
    path.write_bytes(data)
    return load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cuts_are_noticed(suffix, saved, tmp_path):
    data = saved[suffix]
    for size in range(0, len(data), 3):
        with pytest.raises(ModelError, match=rf"m\{suffix}"):
            load_bytes(data[:size], tmp_path / f"m{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bits_are_noticed_or_harmless(suffix, saved, tmp_path):
    data = saved[suffix]
    for place in range(0, len(data), 3):
        mutated = bytearray(data)
        mutated[place] ^= 1 << place // 3 % 8
        try:
            net = load_bytes(mutated, tmp_path / f"m{suffix}")
        except ModelError:
            continue
        assert same(net, NET)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_no_mutation_gives_another_network(suffix, saved, tmp_path_factory, data):
    original = saved[suffix]
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated)))
        piece = data.draw(st.binary(max_size=8))
        mutated[place : place + data.draw(st.integers(0, 16))] = piece
    try:
        net = load_bytes(mutated, tmp_path_factory.mktemp("mutated") / f"m{suffix}")
    except ModelError:
        return
    assert same(net, NET)


@given(suffix=st.sampled_from([".npz", ".safetensors", ".onnx"]), data=st.binary(max_size=200))
def test_noise_is_no_model(suffix, data, tmp_path_factory):
    with pytest.raises(ModelError):
        load_bytes(data, tmp_path_factory.mktemp("noise") / f"m{suffix}")


def npz(**entries):
    """Return an archive of entries given as bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(header, data=b""):
    text = repr(header).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def header(shape, descr="<f8"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize(
    "entry",
    [
        npy(header((2**40, 2**20))),
        npy(header((2**62, 4))),
        npy(header((-1, -8)), bytes(64)),
        npy(header((8,), "|O"), bytes(64)),
        npy(header((8,), "<U0"), b""),
        npy(header((8,), [("a", "<f8")]), bytes(64)),
        npy(header((8,), "<c16"), bytes(128)),
        npy(header((3,)), bytes(64)),
        npy("(" * 5000),
        b"",
        b"\x93NUMPY\x09\x00",
    ],
    ids=range(11),
)
def test_arrays_that_lie(entry, tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(npz(w1=entry, b1=entry))
    with pytest.raises(ModelError, match=r"m\.npz"):
        load(path, "relu", "softmax")


def test_zip_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(npz(w1=npy(header((10**7,)), bytes(8 * 10**7))))
    with pytest.raises(ModelError, match="far more memory than a network in a file of its size"):
        load(path, "relu", "softmax")


@pytest.mark.parametrize(
    "data",
    [
        safetensors({}, size=2**63),
        safetensors(b"[" * 10**5),
        safetensors(b"[]"),
        safetensors(b'{"w1": 1}'),
        safetensors(b'{"w1": {}, "w1": {}}'),
        safetensors({"w1": entry([2**40, 2**40], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([-1, -1], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8), "b1": entry([1], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([1, 1], 8, 16)}, bytes(16)),
        safetensors({"w1": entry([1, 1], 0, 8)}, bytes(9)),
        safetensors({"w1": entry([1, 1], 0, 8)}, bytes(7)),
        safetensors({"w1": entry([1.0, 1], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8, "F8_E4M3")}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8), "__metadata__": {"fastjac": "{}"}}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8), "__metadata__": []}, bytes(8)),
    ],
    ids=range(15),
)
def test_tensors_that_lie(data, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        load(path, "relu", "softmax")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "schema has version 3, but this fastjac reads 1 and 2"),
        ({"version": 2}, "not a JSON object with dtype"),
        ({"version": "2"}, "schema has version '2', but this fastjac reads 1 and 2"),
        ({"activations": ["tanh", "mish", "softmax"]}, "schema has version 1, which has no mish"),
        ({"activations": ["relu"]}, "has 1 activations, but the arrays"),
        ({"activations": ["relu", "relu", "magic"]}, "head is 'magic'"),
        ({"activations": [1, 2, 3]}, "activations are not a list of strings"),
        ({"input_names": ["a"]}, "input_names"),
        ({"output_names": "ab"}, "output_names are not a list of strings"),
        ({"note": "hello"}, "not a JSON object with"),
    ],
)
def test_descriptions_that_lie(changes, message, tmp_path):
    path = tmp_path / "m.npz"
    save(NET, path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["fastjac"] = np.array(json.dumps(json.loads(str(arrays["fastjac"])) | changes))
    np.savez(path, **arrays)
    with pytest.raises(ModelError, match=rf"m\.npz: .*{message}"):
        load(path)


def test_mixed_dtypes_and_wrong_shapes_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    save(NET, path)
    with np.load(path) as file:
        arrays = dict(file)
    for name, array, message in (
        ("w1", arrays["w1"].astype(np.float32), "differ in dtype"),
        ("w2", arrays["w2"][:2], "w2 has shape"),
        ("b3", arrays["b3"][:1], "b3 has shape"),
        ("w1", arrays["w1"] + 0j, "dtype"),
    ):
        np.savez(path, **(arrays | {name: array}))
        with pytest.raises(ModelError, match=message):
            load(path)
