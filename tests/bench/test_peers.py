"""Every installed peer gives the reference's answer on every network that it applies to."""

import importlib

import numpy as np
import pytest

import fastjac
from fastjac.bench import measure
from fastjac.bench.problem import TOLERANCES, VALUE_ALONE, NotApplicableError, disagreement, random_problem
from fastjac.layers import ACTIVATIONS, HEADS_ONLY

ELEMENTWISE = [name for name in ACTIVATIONS if name not in HEADS_ONLY]
WITH_PARAMETERS = ["leaky_relu(0.3)", "leaky_relu(1.5)", "leaky_relu(-0.5)", "elu(0.7)", "celu(0.7)"]
HEADS = ["softmax", "log_softmax", "identity", "sigmoid"]
# Their compilation takes seconds, or they differ from others in little: a few networks are enough.
SLOW = (
    "tensorflow eager tape",
    "tensorflow tf.function, XLA",
    "torch by hand, compiled",
    "jax jacfwd",
    "jax jacrev, arguments",
    "jax by hand, arguments",
)

# The libraries' own affair.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def peers_of(family):
    try:
        return importlib.import_module(f"fastjac.bench.peers.{measure.FAMILIES[family]}").PEERS
    except ModuleNotFoundError as error:
        pytest.skip(f"{family}: {error}")


def agree(family, problem, slow=True):
    for name, build in peers_of(family).items():
        if name.startswith(SLOW) and not slow:
            continue
        try:
            call = build(problem)
        except NotApplicableError:
            continue
        for time in ("first", "second"):
            y, jac = call()
            assert (jac is None) == name.endswith(VALUE_ALONE), name
            assert disagreement(problem, y, jac) <= TOLERANCES[problem.dtype.name], f"{name}, {time} call"


@pytest.mark.parametrize("family", measure.FAMILIES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_peers_agree_on_the_article_s_network(family, dtype):
    agree(family, random_problem((13, 9, 4), dtype=dtype))


@pytest.mark.parametrize("family", measure.FAMILIES)
def test_peers_agree_on_a_batch(family):
    agree(family, random_problem((13, 9, 4), batch=3))


@pytest.mark.parametrize("family", measure.FAMILIES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sizes", [(5, 3), (7, 12, 11, 3), (6, 9, 4, 8, 3)])
def test_peers_agree_at_any_depth(family, head, sizes):
    agree(family, random_problem(sizes, head=head), slow=head == "log_softmax" and len(sizes) == 5)


@pytest.mark.parametrize("family", measure.FAMILIES)
@pytest.mark.parametrize("activation", [*ELEMENTWISE, *WITH_PARAMETERS])
def test_peers_agree_on_every_activation(family, activation):
    # Two exponentials in a chain saturate a head.
    head = "identity" if activation == "exp" else "tanh"
    agree(family, random_problem((7, 12, 11, 3), activation, head), slow=False)


@pytest.mark.parametrize("activation", [*ELEMENTWISE, *WITH_PARAMETERS])
def test_onnxruntime_agrees_in_float32_where_it_has_every_operator(activation):
    (build,) = peers_of("onnxruntime").values()
    problem = random_problem((7, 12, 11, 3), activation, "softmax", "float32")
    y, _ = build(problem)()
    assert disagreement(problem, y, None) <= TOLERANCES["float32"]


def test_the_article_s_numpy_starts_from_an_identity_and_returns_new_arrays():
    call = peers_of("numpy")["numpy, as in the article"](random_problem((5, 4, 3), dtype="float32"))
    y, jac = call()
    # The article's zeros and ones have NumPy's default dtype.
    assert (y.dtype, jac.dtype) == (np.float64, np.float64)
    assert call()[1] is not jac


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_fastjac_is_called_as_people_call_it(dtype):
    problem = random_problem((5, 4, 3), dtype=dtype)
    x = problem.x
    given = []
    for build in peers_of("fastjac").values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                fastjac.Network,
                "value_and_jacobian",
                lambda net, x, out=None: given.append((x, out)) or (np.zeros(3), np.zeros((3, 5))),
            )
            build(problem)()
    kinds = {(type(x), getattr(x, "dtype", None), np.ndim(x), out is None) for x, out in given}
    other = np.dtype({"float64": "float32", "float32": "float64"}[dtype])
    assert kinds >= {
        (np.ndarray, x.dtype, 1, False),
        (np.ndarray, x.dtype, 1, True),
        (np.ndarray, other, 1, True),
        (list, None, 1, True),
        (np.ndarray, x.dtype, 2, False),
    }
