"""Random networks: deep, flat, with bottlenecks, with few inputs or outputs."""

import numpy as np

from fastjac import embedding
from support.oracles import DTYPES, EDGES, HEADS, HIDDEN, Case
from support.workspaces import calls

GROWING = ("exp", "square")
WITH_PARAMETER = {"elu": "elu({:.3g})", "leaky_relu(0.2)": "leaky_relu({:.3g})"}


def _size(rng):
    kind = rng.random()
    if kind < 0.25:
        return int(rng.integers(1, 5))
    return int(rng.integers(1, 71)) if kind < 0.7 else int(rng.choice(EDGES))


def _named(rng, names):
    name = str(rng.choice(names))
    return WITH_PARAMETER.get(name, "{1}").format(rng.uniform(0, 2), name)


def draw_case(rng):
    """Return a `Case` of one to seven layers."""
    layers = int(rng.choice([1, 2, 2, 2, 3, 3, 4, 5, 6, 7]))
    sizes = [_size(rng) for _ in range(layers + 1)]
    few = rng.random()
    if few < 0.2:
        sizes[0] = int(rng.integers(1, 4))
    elif few < 0.4:
        sizes[-1] = int(rng.integers(1, 4))
    same = rng.random() < 0.5
    hidden = (
        [_named(rng, HIDDEN)] * (layers - 1) if same else [_named(rng, HIDDEN) for _ in range(layers - 1)]
    )
    head = str(rng.choice(["softmax", "log_softmax"])) if rng.random() < 0.5 else _named(rng, HEADS)
    growing = sum(name in GROWING for name in (*hidden, head))
    if growing > 1 or (growing and layers > 3):  # The exponential of another, or of large numbers, overflows.
        hidden, head = ["tanh" if name in GROWING else name for name in hidden], "identity"
    scale = float(rng.choice([0.5, 1.0, 2.0]))
    return Case(tuple(sizes), tuple(hidden), head, DTYPES[rng.integers(2)], scale, int(rng.integers(2**31)))


def compile_all():
    """Compile once what forks then find."""
    for dtype in DTYPES:
        case = Case((3, 4, 2), dtype=dtype)
        net, x, y, jac = case.network(), case.x(), np.zeros(2, dtype), np.zeros((2, 3), dtype)
        calls(net, np.stack([x] * 2))
        net.bind(x, (y, jac))()
        assert embedding.value_and_jacobian(net.handle(), x, y, jac) == embedding.OK
