"""from_torch against the module's own forward pass and torch.func.jacrev."""

import copy
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from fastjac.models import from_torch

torch = pytest.importorskip("torch")
nn = torch.nn

# Relative to the largest entry.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}

ACTIVATIONS = [
    nn.ReLU(),
    nn.LeakyReLU(0.2),
    nn.ReLU6(),
    nn.Hardtanh(),
    nn.Hardtanh(-0.5, 2.0),
    nn.ELU(0.7),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softplus(),
    nn.Softplus(beta=2.5),
    nn.SiLU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SELU(),
    nn.CELU(),
    nn.CELU(0.4),
    nn.PReLU(),
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.Mish(),
    nn.Softsign(),
    nn.Hardtanh(-0.5, float("inf")),
    nn.Hardtanh(float("-inf"), 0.25),
    nn.Identity(),
]


def trained(module, n_inputs, dtype, *, shape=None, seed=0):
    """Return the module in eval mode after a few steps on random targets, which move every parameter."""
    torch.manual_seed(seed)
    module = copy.deepcopy(module).to(dtype).train()
    x = torch.randn(64, *(shape or (n_inputs,)), dtype=dtype) * 2 + 0.5
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        y = module(x)
        ((y - torch.linspace(-1, 1, y.shape[1], dtype=dtype)) ** 2).mean().backward()
        optimizer.step()
    return module.eval(), x[:5]


def assert_same(module, x, tolerance=None):
    net = from_torch(module)
    tolerance = tolerance or TOLERANCES[x.dtype]
    # In float64 in either case: PyTorch's own float32 Jacobian is off by 1e-5 where softmax saturates.
    module = copy.deepcopy(module).double()
    assert net.dtype == {torch.float32: np.float32, torch.float64: np.float64}[x.dtype]
    for sample in x.double():
        expected = module(sample[None])[0].detach().numpy()
        y, jac = net.value_and_jacobian(sample.numpy().ravel())
        expected_jac = torch.func.jacrev(lambda v: module(v[None])[0])(sample).detach().numpy()
        expected_jac = expected_jac.reshape(jac.shape)
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())
        np.testing.assert_allclose(jac, expected_jac, rtol=0, atol=tolerance * np.abs(expected_jac).max())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_every_activation(activation, dtype):
    module = nn.Sequential(nn.Linear(6, 5), activation, nn.Linear(5, 4), activation, nn.Linear(4, 3))
    # PyTorch's derivatives of these have a constant in float32, whatever the dtype.
    rounds = isinstance(activation, (nn.CELU, nn.Hardsigmoid)) and dtype == torch.float64
    assert_same(*trained(module, 6, dtype), 1e-7 if rounds else None)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_prelu_with_a_slope_for_each_unit(dtype):
    module = nn.Sequential(nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 4), nn.PReLU(4, init=-0.5))
    module, x = trained(module, 6, dtype)
    assert_same(module, x)
    assert from_torch(module).layers[0].activation.parameter == tuple(module[1].weight.tolist())
    with pytest.raises(
        ValueError, match=r"layer 1 has prelu.3 slopes., expected one for each of its 5 units"
    ):
        from_torch(nn.Sequential(nn.Linear(6, 5), nn.PReLU(3)))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("head", [nn.Softmax(-1), nn.Softmax(1), nn.LogSoftmax(-1), nn.Sigmoid()], ids=str)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (8, 32, 4), (64, 20, 30, 10), (50, 3, 40, 7)], ids=str)
def test_shapes_and_heads(sizes, head, dtype):
    layers = [layer for size in pairwise(sizes) for layer in (nn.Linear(*size), nn.ReLU())]
    assert_same(*trained(nn.Sequential(*layers[:-1], head), sizes[0], dtype))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    "layers",
    [
        (nn.BatchNorm1d(6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(1)),
        (nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Softmax(1)),
        (nn.Linear(6, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.LogSoftmax(1)),
        (nn.Linear(6, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)),
        (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4, affine=False), nn.Tanh(), nn.BatchNorm1d(4)),
        (nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)),
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_batch_norm_anywhere(layers, dtype):
    assert_same(*trained(nn.Sequential(*layers), 6, dtype))


def test_batch_norm_goes_into_its_neighbour():
    layers = nn.BatchNorm1d(6), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)
    net = from_torch(nn.Sequential(*layers))
    assert [layer.w.shape for layer in net.layers] == [(6, 4), (4, 3)]
    assert [str(layer.activation) for layer in net.layers] == ["relu", "identity"]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_nested_with_flatten_dropout_and_identity(dtype):
    module = nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 8, bias=False), nn.Sequential()),
        nn.Sequential(nn.Identity(), nn.Sequential(nn.Tanh(), nn.Linear(8, 5))),
        nn.AlphaDropout(0.1),
        nn.Softmax(dim=1),
    )
    assert_same(*trained(module, 12, dtype, shape=(3, 4)))


def test_a_single_layer_is_a_network():
    assert_same(*trained(nn.Linear(4, 3), 4, torch.float64))


def test_two_linear_layers_in_a_row():
    assert_same(*trained(nn.Sequential(nn.Linear(20, 2), nn.Linear(2, 20)), 20, torch.float64))


def test_activation_before_the_first_linear_needs_no_more():
    module, x = trained(nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)), 4, torch.float64)
    assert_same(module, x)
    with pytest.raises(ValueError, match="relu comes first, and nothing tells how many inputs"):
        from_torch(nn.Sequential(nn.ReLU(), nn.Linear(4, 3)))


def test_training_mode_reads_as_eval():
    module, x = trained(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9), nn.BatchNorm1d(3)), 4, torch.float64)
    expected = from_torch(module)(x[0].numpy())
    np.testing.assert_array_equal(from_torch(module.train())(x[0].numpy()), expected)
    assert module.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_becomes_float32(dtype):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).to(dtype)
    net = from_torch(module)
    assert net.dtype == np.float32
    np.testing.assert_array_equal(net.layers[0].w, module[0].weight.detach().float().numpy().T)


def test_parametrized_weights_are_read_as_computed():
    linear = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    linear.parametrizations.weight.original0.data *= 3
    assert_same(nn.Sequential(linear, nn.Tanh()).double().eval(), torch.randn(2, 4, dtype=torch.float64))


def layer_state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_read_as_in_eval(module, x):
    """Assert that a module in train mode is read as in eval mode, twice the same, and untouched."""
    module.train()
    before = layer_state(module)
    first, second = from_torch(module), from_torch(module)
    assert module.training
    assert before.keys() == module.state_dict().keys()
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in before.items())
    for a, b in zip(first.layers, second.layers, strict=True):
        assert a.w.tobytes() == b.w.tobytes()
        assert a.b.tobytes() == b.b.tobytes()
    with torch.no_grad():
        expected = module.eval()(x).numpy()
    np.testing.assert_allclose([first(row) for row in x.numpy()], expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`?torch.nn.utils.weight_norm")
@pytest.mark.parametrize(
    "computed",
    [
        torch.nn.utils.parametrizations.spectral_norm,
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.orthogonal,
        torch.nn.utils.spectral_norm,
        torch.nn.utils.weight_norm,
        lambda layer: torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: torch.nn.utils.prune.random_unstructured(layer, "bias", 0.5),
        lambda layer: torch.nn.utils.prune.ln_structured(
            torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.3), "weight", 0.3, n=2, dim=0
        ),
    ],
    ids=lambda function: function.__module__.rpartition(".")[2] + "." + function.__name__,
)
def test_weights_that_are_computed_are_read_as_in_eval(computed):
    torch.manual_seed(0)
    module = nn.Sequential(computed(nn.Linear(4, 5)), nn.BatchNorm1d(5), nn.Tanh(), computed(nn.Linear(5, 3)))
    module.double()
    x = torch.randn(6, 4, dtype=torch.float64)
    module(x)
    assert_read_as_in_eval(module, x)


def test_a_weight_computed_twice_is_refused():
    layer = torch.nn.utils.prune.l1_unstructured(nn.Linear(4, 3), "weight", 0.5)
    hook = next(iter(layer._forward_pre_hooks.values()))
    layer.register_forward_pre_hook(hook)
    with pytest.raises(ValueError, match=r"0 \(Linear\) has 2 hooks that compute its weight"):
        from_torch(nn.Sequential(layer))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_compiled_modules_are_read_as_the_original():
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    expected = from_torch(module)
    inner = nn.Sequential(torch.compile(module[0]), *module[1:])
    in_place = copy.deepcopy(module)
    in_place.compile()
    for compiled in (torch.compile(module), inner, in_place):
        net = from_torch(compiled)
        for layer, other in zip(net.layers, expected.layers, strict=True):
            np.testing.assert_array_equal(layer.w, other.w)
    compiled = torch.compile(module)
    compiled.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"has the hook .*<lambda>, which may change its output"):
        from_torch(compiled)


class Convolving(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Convolving(),
            r"^Convolving has a forward of its own, and in it layers\.0 \(Conv2d\), which is not a",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), nn.Hardshrink()),
            r"^1 \(Hardshrink\): hardshrink: fastjac has no such operation",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)),
            r"^1 \(LSTM\) is not a layer that fastjac reads \([^.]*\)$",
        ),
        (nn.Sequential(nn.Linear(3, 3, device="meta")), "its weight is on the device meta"),
        (nn.Sequential(nn.Linear(3, 3, dtype=torch.complex64)), "its weight has dtype torch.complex64"),
        (nn.Conv1d(3, 3, 1), "^Conv1d is not a layer"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(0)), r"1 \(Softmax\) has dim 0, expected -1"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)), r"1 \(Linear\) takes 3 inputs, but gets 4"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(3)), r"1 \(BatchNorm1d\) takes 3 inputs, but gets 4"),
        (nn.BatchNorm1d(3, track_running_stats=False), "keeps no running statistics"),
        (nn.Sequential(nn.Flatten(2), nn.Linear(3, 3)), "flattens axes 2 to -1"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softplus(threshold=5)), "has threshold 5"),
        (nn.Sequential(nn.LazyLinear(3)), r"0 \(LazyLinear\) has no weights yet"),
        (nn.Sequential(), "identity comes first"),
        (nn.Sequential(nn.BatchNorm1d(5000), nn.ReLU()), "relu of 5000 entries has no Dense layer"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_clear_no(module, message):
    with pytest.raises((TypeError, ValueError), match=message):
        from_torch(module)


@pytest.mark.filterwarnings("ignore")
def test_quantized_modules_are_refused_as_what_they_are():
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    try:
        quantized = torch.ao.quantization.quantize_dynamic(module, {nn.Linear})
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"this PyTorch cannot quantize here: {error}")
    with pytest.raises(ValueError, match=r"0 \(Linear\) is quantized.*pass the module of floats"):
        from_torch(quantized)


def test_hooks_are_refused():
    module = nn.Sequential(nn.Linear(3, 3))
    module[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"0 \(Linear\) has the hook .*<lambda>.*call remove\(\)"):
        from_torch(module)


@pytest.mark.parametrize("value", [None, {"weight": 1}, nn.Linear])
def test_not_a_module(value):
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got (NoneType|dict|type)"):
        from_torch(value)


def test_importing_the_converters_imports_no_framework():
    code = (
        "import sys, fastjac.models, fastjac.models.files; "
        "print(sorted({'torch', 'keras', 'tensorflow', 'sklearn', 'jax', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
