"""Random networks, with workspaces full of NaN and worse before each call, against plain NumPy."""

import numpy as np

from attacks.cases import attack, note
from attacks.draws import compile_all, draw_case
from attacks.evaluation import LONG, evaluated, near_kinks
from fastjac import embedding
from support.workspaces import find_written, scratch

POISONS = (np.nan, np.inf, -np.inf, 1e30)
MOST_WORK = 3_000_000  # multiply-adds of one case's evaluation


def assert_near(name, got, expected, allowed):
    assert got.shape == expected.shape, f"{name} has shape {got.shape}, expected {expected.shape}"
    excess = abs(got.astype(LONG) - expected) / allowed
    at = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
    where = tuple(map(int, at))
    assert excess[at] <= 1, (
        f"{name} at {where}: {got[at]!r}, expected {expected[at]!r}, {excess[at]:.3g} of what is allowed"
    )


def draw_samples(rng, net, batch):
    """Return up to ``batch`` samples (B, N) that are not near a kink."""
    x = rng.choice([0.3, 1, 3]) * rng.standard_normal((3 * batch, net.n_inputs))
    x = x.astype(net.dtype)
    return x[~near_kinks(net.layers, x)][:batch]


def check(seed, number, found):
    rng = np.random.default_rng([seed, number])
    case = draw_case(rng)
    net = case.network()
    work = case.widths[0] * sum(layer.w.size for layer in net.layers)
    x = draw_samples(rng, net, int(min(rng.choice([1, 2, 5, 17, 19, 37]), 1 + MOST_WORK // work)))
    note(f"{case}, {len(x)} samples")
    if not len(x):
        found["networks with all samples near kinks, not compared"] += 1
        return
    v, u = (rng.standard_normal((len(x), size)).astype(net.dtype) for size in (net.n_outputs, net.n_inputs))
    net.value_and_jacobian(x)
    (context,) = net._calls.contexts.made
    arrays = scratch(context, net.dtype)
    ill = x.copy()
    ill[0] = rng.choice(POISONS[:3])
    with np.errstate(all="ignore"):
        written = find_written(net, arrays, [x, ill])

    def poisoned(method, *arguments):
        value = rng.choice(POISONS)
        for array, where in zip(arrays, written, strict=True):
            array[where] = value
        return method(*arguments)

    y, jac, y_allowed, jac_allowed = evaluated(net.layers, x)
    for i in (*range(min(len(x), 2)), slice(None)):
        kind = "of a batch" if i == slice(None) else "of one sample"
        jv = np.einsum("...m,...mn->...n", v[i].astype(LONG), jac[i])
        ju = np.einsum("...mn,...n->...m", jac[i], u[i].astype(LONG))
        jv_allowed = 2 * np.einsum("...m,...mn->...n", abs(v[i]).astype(LONG), jac_allowed[i])
        ju_allowed = 2 * np.einsum("...mn,...n->...m", jac_allowed[i], abs(u[i]).astype(LONG))
        assert_near(f"output {kind}", poisoned(net, x[i]), y[i], y_allowed[i])
        both = poisoned(net.value_and_jacobian, x[i])
        assert_near(f"value {kind}", both[0], y[i], y_allowed[i])
        assert_near(f"Jacobian {kind}", both[1], jac[i], jac_allowed[i])
        assert_near(f"jacobian {kind}", poisoned(net.jacobian, x[i]), jac[i], jac_allowed[i])
        assert_near(f"vjp {kind}", poisoned(net.vjp, x[i], v[i])[1], jv, jv_allowed)
        assert_near(f"jvp {kind}", poisoned(net.jvp, x[i], u[i])[1], ju, ju_allowed)
    means = poisoned(net.sensitivity, x)
    assert_near("mean_abs", means, abs(jac).mean(axis=0), jac_allowed.mean(axis=0))
    norms = poisoned(net.sensitivity, x, "frobenius")
    allowed = ((2 * abs(jac) + jac_allowed) * jac_allowed).sum(axis=(1, 2))
    assert_near("frobenius", norms, (jac * jac).sum(axis=(1, 2)), allowed + 1e-300)
    assert_same_of_one_sample(net, x[0])
    found["samples compared"] += len(x)
    found[f"{net.dtype} networks"] += 1


def assert_same_of_one_sample(net, x):
    """Assert that bound functions and handles give the bits that the method gives."""
    expected = net.value_and_jacobian(x)
    y, jac = np.zeros_like(expected[0]), np.zeros_like(expected[1])
    for name, call in (
        ("bind", net.bind(x, (y, jac))),
        ("handle", lambda: embedding.value_and_jacobian(net.handle(), x, y, jac)),
    ):
        y[:], jac[:] = np.nan, np.nan
        call()
        assert y.tobytes() == expected[0].tobytes() and jac.tobytes() == expected[1].tobytes(), name


if __name__ == "__main__":
    compile_all()
    attack(check, 10_000)
