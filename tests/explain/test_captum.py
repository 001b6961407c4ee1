"""Attributions against captum's, one output at a time."""

import numpy as np
import pytest

from fastjac.explain import input_x_gradient, integrated_gradients, saliency, smooth_grad
from support.oracles import Case

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")

CASES = [
    Case((12, 30, 20, 4), ("tanh", "relu"), "softmax"),
    Case((12, 30, 20, 4), ("relu", "silu"), "identity"),
    Case((12, 30, 20, 4), ("gelu", "sigmoid"), "log_softmax"),
    Case((12, 30, 20, 4), ("tanh", "relu"), "softmax", np.float32),
]


def module(net):
    kinds = {
        "identity": torch.nn.Identity(),
        "relu": torch.nn.ReLU(),
        "tanh": torch.nn.Tanh(),
        "silu": torch.nn.SiLU(),
        "gelu": torch.nn.GELU(),
        "sigmoid": torch.nn.Sigmoid(),
        "softmax": torch.nn.Softmax(-1),
        "log_softmax": torch.nn.LogSoftmax(-1),
    }
    parts = []
    for layer in net.layers:
        linear = torch.nn.Linear(*layer.w.shape, dtype=torch.from_numpy(layer.w.copy()).dtype)
        with torch.no_grad():
            linear.weight[:] = torch.from_numpy(layer.w.T.copy())
            linear.bias[:] = torch.from_numpy(layer.b.copy())
        parts += [linear, kinds[layer.activation.name]]
    return torch.nn.Sequential(*parts)


@pytest.fixture(params=CASES, ids=str)
def example(request):
    net = request.param.network()
    x = np.random.default_rng(1).normal(size=(5, net.n_inputs)).astype(net.dtype)
    return net, module(net), x, torch.from_numpy(x).requires_grad_()


def assert_equal(found, expected, dtype=None):
    """Compare with (B, N) for each output in turn: sums of some dozens of terms below 1 in ``dtype``."""
    atol = 200 * np.finfo(dtype or found.values.dtype).eps
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=0, atol=atol)


def test_saliency(example):
    net, model, x, inputs = example
    method = attr.Saliency(model)
    assert_equal(
        saliency(net, x),
        [method.attribute(inputs, target=m, abs=False).detach().numpy() for m in range(net.n_outputs)],
    )


def test_input_x_gradient(example):
    net, model, x, inputs = example
    method = attr.InputXGradient(model)
    assert_equal(
        input_x_gradient(net, x),
        [method.attribute(inputs, target=m).detach().numpy() for m in range(net.n_outputs)],
    )


def test_integrated_gradients_and_their_completeness(example):
    net, model, x, inputs = example
    method = attr.IntegratedGradients(model)
    baseline = np.linspace(-1, 1, net.n_inputs).astype(net.dtype)
    results = [
        method.attribute(
            inputs,
            torch.from_numpy(np.tile(baseline, (len(x), 1))),
            target=m,
            n_steps=50,
            return_convergence_delta=True,
        )
        for m in range(net.n_outputs)
    ]
    found = integrated_gradients(net, x, baseline)
    # captum rounds the weights of the rule to float32.
    assert_equal(found, [values.detach().numpy() for values, _ in results], np.float32)
    atol = 1000 * np.finfo(np.float32).eps
    deltas = np.stack([delta.detach().numpy() for _, delta in results], axis=1)
    np.testing.assert_allclose(found.completeness, deltas, rtol=0, atol=atol)


def test_smooth_grad(example, monkeypatch):
    net, model, x, inputs = example
    draws = np.random.default_rng(3).standard_normal((25, net.n_inputs), net.dtype)

    def normal(mean, deviation):
        # captum repeats each sample 25 times in a row.
        return torch.from_numpy(np.tile(draws, (len(x), 1))) * deviation + mean

    monkeypatch.setattr(torch, "normal", normal)
    method = attr.NoiseTunnel(attr.Saliency(model))
    assert_equal(
        smooth_grad(net, x, 0.25, 25, seed=3),
        [
            method.attribute(
                inputs, nt_type="smoothgrad", nt_samples=25, stdevs=0.25, target=m, abs=False
            ).detach()
            for m in range(net.n_outputs)
        ],
    )
