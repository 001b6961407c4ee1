"""Networks to write to files, equality to the bit, and files of safetensors written by hand."""

import json
import struct

import numpy as np

from fastjac import Network

rng = np.random.default_rng(0)


def layers(*sizes, dtype=np.float64):
    return [(rng.normal(size=size).astype(dtype), rng.normal(size=size[1]).astype(dtype)) for size in sizes]


NET = Network(
    layers((4, 3), (3, 5), (5, 2)),
    ["leaky_relu(0.1)", "tanh"],
    "log_softmax",
    input_names=["a", "b", "ü\0", ""],
    output_names=["no", "yes"],
)


def same(net, other):
    """Return whether two networks are equal to the bit."""
    if (net.dtype, net.input_names, net.output_names) != (other.dtype, other.input_names, other.output_names):
        return False
    return len(net.layers) == len(other.layers) and all(
        a.activation == b.activation and a.w.tobytes() == b.w.tobytes() and a.b.tobytes() == b.b.tobytes()
        for a, b in zip(net.layers, other.layers, strict=True)
    )


def safetensors(header, body=b"", size=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def entry(shape, begin, end, dtype="F64"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
