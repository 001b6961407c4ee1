"""from_torch on modules with a forward of their own, against the module and torch.func.jacrev."""

import copy
import math

import numpy as np
import pytest

from fastjac.models import from_torch

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional

# PyTorch's own, of its Jacobians.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}  # relative to the largest entry


class Own(nn.Module):
    """A module whose forward is a function of it, of an inner layer 6-8 and an outer layer of any size."""

    def __init__(self, function, outer=(8, 3)):
        super().__init__()
        self.function = function
        self.inner = nn.Linear(6, 8)
        self.outer = nn.Linear(*outer)
        self.gate = nn.Linear(6, 8)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 8))

    def forward(self, *inputs):
        return self.function(self, *inputs)


def by_hand(spelling, outer=(8, 3)):
    """Return a module that computes ``outer(spelling(inner(x)))``."""
    return Own(lambda m, x: m.outer(spelling(m.inner(x))), outer)


def overwritten(m, x):
    h = m.inner(x)
    h[:, 0] = x[:, 1]
    h[:, 1] = 2.0
    h[:, 2:4] *= 3.0
    y = torch.zeros(x.shape[0], 10, dtype=x.dtype)
    y[:, 1:9] = h
    h.relu_()
    return (y[:, :8] + h).squeeze_()


def pieces(m, x):
    a, b, c = x.split([1, 3, 2], -1)
    d, e = x.chunk(2, 1)
    parts = [a, b.flip(1), c[:, [1, 0, 1]], d - e, x[:, ::2], x.roll(1, 1).unfold(1, 2, 2)[..., 0]]
    return torch.cat([part.reshape(len(x), -1) for part in parts], 1) @ torch.ones(16, 4, dtype=x.dtype)


def rows_of_a_table(m, x):
    table = x.view(-1, 3, 2).transpose(1, 2)
    table = F.layer_norm(table @ m.outer.weight, (8,)).permute(0, 2, 1).contiguous()
    return torch.stack([table[..., 0], table[:, :, 1]], 1).flatten(1).softmax(-1)


def sums(m, x):
    h = m.inner(x)
    total = h.sum(-1, keepdim=True) + h.mean(dim=1).unsqueeze(1)
    return torch.cat(
        [total, (h * h).sum(1, keepdim=True), torch.einsum("bi,bi->b", h, m.gate(x))[:, None]], 1
    )


class Tokens(nn.Module):
    """A layer of tokens (3, 4) between linear layers."""

    def __init__(self, layer, compute=lambda layer, tokens: layer(tokens)):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 12), layer, nn.Linear(12, 2)
        self.compute = compute

    def forward(self, x):
        tokens = torch.tanh(self.first(x)).reshape(-1, 3, 4)
        return self.last(self.compute(self.layer, tokens).flatten(1))


def attention(**options):
    return nn.MultiheadAttention(4, 2, batch_first=True), lambda layer, t: layer(t, t, t, **options)[0]


NETWORKS = {
    "residual": Own(lambda m, x: x + 0.05 * m.outer(torch.tanh(m.inner(x))), (8, 6)),
    "two residual": Own(
        lambda m, x: (lambda h: h + m.outer(torch.tanh(h)))(torch.tanh(m.inner(x)) + m.gate(x)), (8, 8)
    ),
    "concatenating": Own(lambda m, x: m.outer(torch.cat([F.softplus(m.inner(x)), x], -1)), (14, 3)),
    "dense skip": Own(
        lambda m, x: torch.cat([x, m.outer(torch.cat([x, m.inner(x).tanh()], 1)).tanh()], 1), (14, 2)
    ),
    "gated": Own(lambda m, x: m.outer(torch.sigmoid(m.gate(x)) * torch.tanh(m.inner(x))).log_softmax(-1)),
    "glu": Own(lambda m, x: F.softmax(m.outer(F.glu(m.inner(x))), dim=1), (4, 3)),
    "softmax inside": Own(lambda m, x: m.outer(m.inner(x).softmax(-1) * m.gate(x))),
    "functional": Own(
        lambda m, x: F.linear(F.dropout(F.relu(m.inner(x.flatten(1))), 0.5, m.training), m.outer.weight)
    ),
    "matmul": Own(lambda m, x: (m.outer.weight @ (m.inner(x) - 1).T).T / 2 + 1 - m.outer.bias),
    "addmm": Own(lambda m, x: torch.addmm(m.outer.bias, m.inner(x), m.outer.weight.t(), beta=2, alpha=0.5)),
    "einsum": Own(lambda m, x: torch.einsum("bi,oi->bo", m.inner(x), m.outer.weight)),
    "bilinear": Own(lambda m, x: F.bilinear(x, x.tanh(), m.outer.weight.reshape(2, 6, 6)), (36, 2)),
    "layer_norm": by_hand(lambda h: F.elu(F.layer_norm(h, (8,), torch.linspace(1, 2, 8, dtype=h.dtype)))),
    "overwritten": Own(overwritten),
    "pieces": Own(pieces),
    "rows": Own(rows_of_a_table, (8, 3)),
    "sums": Own(sums),
    "clamp": by_hand(lambda h: h.clamp(-0.3, 0.9) + h.clamp(min=0.1) + F.relu6(h) + h.clamp_max(0.2)),
    "maximum": Own(lambda m, x: torch.maximum(m.inner(x), m.gate(x)) + torch.minimum(m.inner(x), m.gain)),
    "powers": by_hand(lambda h: h**2 + h**3 - h.pow(5) / 7 + h**0),
    "matrices": Own(lambda m, x: (m.inner(x).reshape(-1, 2, 2, 2) @ m.inner.weight[:2, :4]).flatten(1)),
    "matrices times a vector": Own(lambda m, x: m.inner(x).reshape(-1, 2, 4) @ m.gain[:4]),
    "constants picked": by_hand(lambda h: torch.where(torch.arange(8) % 2 == 0, h, -h.tanh())),
    "tanhshrink": by_hand(nn.Tanhshrink()),
    "softshrink": by_hand(nn.Softshrink(0.2)),
    "logsigmoid": by_hand(nn.LogSigmoid()),
    "attention": Tokens(nn.Identity(), lambda _, t: F.scaled_dot_product_attention(t, t.flip(1), t)),
    "causal attention": Tokens(
        nn.Identity(), lambda _, t: F.scaled_dot_product_attention(t, t, t, is_causal=True)
    ),
    "heads of attention": Tokens(*attention()),
    "heads of attention alone": Tokens(*attention(need_weights=False)),
    "transformer": Tokens(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True)),
    "transformer, gelu": Tokens(nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True)),
    "group norm": nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Linear(8, 3)),
}
# How people spell activations and normalisations out.
SPELLED = {
    "silu": ("silu", lambda h: h * torch.sigmoid(h)),
    "gelu": ("gelu", lambda h: 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))),
    "gelu_tanh": (
        "gelu_tanh",
        lambda h: 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))),
    ),
    "leaky_relu": ("leaky_relu", lambda h: torch.where(h > 0, h, 0.1 * h)),
    "leaky_relu, the other way": ("leaky_relu", lambda h: torch.where(~(h > 0), 0.1 * h, h)),
    "elu": ("elu", lambda h: torch.where(h > 0, h, 0.7 * torch.expm1(h))),
    "softplus": ("softplus", lambda h: torch.log1p(torch.exp(h))),
    "sigmoid": ("sigmoid", lambda h: 1 / (1 + torch.exp(-h))),
    "tanh": ("tanh", lambda h: (h.exp() - (-h).exp()) / (h.exp() + (-h).exp())),
    "softmax": ("softmax", lambda h: (h - h.amax(1, True)).exp() / (h - h.amax(1, True)).exp().sum(1, True)),
    "layer_norm": (
        "layer_norm",
        lambda h: (h - h.mean(1, keepdim=True)) / torch.sqrt(h.var(1, unbiased=False, keepdim=True) + 1e-5),
    ),
    "rms_norm": ("rms_norm", lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)),
    "unit length": ("rms_norm", F.normalize),
    "softsign": ("softsign", lambda h: h / (1 + h.abs())),
    "mish": ("mish", lambda h: h * torch.tanh(F.softplus(h))),
    "abs": ("abs", lambda h: h.abs()),
    "sin": ("sin", lambda h: torch.sin(30 * h)),
}
LAYERS = {
    "LayerNorm": nn.LayerNorm(8),
    "RMSNorm": nn.RMSNorm(8),
    "GLU": nn.GLU(),
    "PReLU": nn.PReLU(8),
    "Softmax": nn.Softmax(-1),
}


def assert_same(module, inputs, dtype, net=None, example=None):
    module = copy.deepcopy(module).to(dtype).eval()
    net = net or from_torch(module, example)
    assert net.dtype == {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    module = module.double()
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        sample = torch.randn(inputs, generator=random, dtype=torch.float64)
        expected = module(sample[None]).detach().ravel().numpy()
        y, jac = net.value_and_jacobian(sample.numpy())
        expected_jac = torch.func.jacrev(lambda v: module(v[None]).ravel())(sample).detach().numpy()
        atol = TOLERANCES[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
        atol = TOLERANCES[dtype] * np.abs(expected_jac).max()
        np.testing.assert_allclose(jac, expected_jac, rtol=0, atol=atol)
    return net


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind(name, dtype):
    assert_same(NETWORKS[name], 6, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", SPELLED)
def test_what_people_spell_out_is_recognised(name, dtype):
    operation, spelling = SPELLED[name]
    net = assert_same(by_hand(spelling), 6, dtype)
    assert operation in repr(net)
    assert "multiply" not in repr(net)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_graphs(name, dtype):
    outer = 4 if name == "GLU" else 8
    assert_same(nn.Sequential(nn.Linear(6, 8), LAYERS[name], nn.Linear(outer, 3)), 6, dtype)


def test_inputs_far_from_zero_are_computed_in_float64():
    module = Own(lambda m, x: (x - 3000) * m.gate(x - 3000)[:, :6].sigmoid())
    x = torch.randn(5, 6) + 3000
    net = from_torch(module, torch.zeros(1, 6))
    assert net.dtype == np.float64
    np.testing.assert_allclose(net(x.numpy()), module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_blocks_in_a_sequential(dtype):
    class Residual(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.layers = nn.Sequential(nn.BatchNorm1d(size), nn.Linear(size, size), nn.ReLU())

        def forward(self, x):
            return x + self.layers(x)

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    module = nn.Sequential(nn.Linear(6, 5), *(Residual(5) for _ in range(3)), nn.Sequential(Doubled(5, 2)))
    assert_same(module, 6, dtype)
    patched = nn.Linear(6, 6)
    patched.forward = lambda x: x * 3
    assert_same(nn.Sequential(patched, nn.Linear(6, 2)), 6, dtype)


def test_what_is_a_chain_becomes_the_same_layers():
    chain = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3), nn.Softmax(-1)
    ).eval()
    chain[1].running_mean += 0.5

    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = chain

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = layer(x)
            return torch.softmax(x, dim=-1)

    for layer, other in zip(from_torch(Same()).layers, from_torch(chain).layers, strict=True):
        np.testing.assert_allclose(layer.w, other.w, rtol=1e-6)
        np.testing.assert_allclose(layer.b, other.b, rtol=1e-6, atol=1e-7)
        assert layer.activation == other.activation


def test_several_arguments_are_inputs_one_behind_the_other():
    critic = Own(lambda m, x, u: m.outer(F.silu(m.inner(torch.cat([x, u], -1))))).double()
    net = from_torch(critic, (torch.zeros(4), torch.zeros(2)))
    x = torch.randn(6, dtype=torch.float64)
    expected = critic(x[:4], x[4:]).detach().numpy()
    np.testing.assert_allclose(net(x.numpy()), expected, rtol=0, atol=1e-12)
    assert net.dtype == np.float64
    with pytest.raises(ValueError, match=r"^Own cannot compute a sample of shape \(1, 6\).*Pass an example"):
        from_torch(critic)


def test_a_sample_that_is_no_batch():
    features = Own(lambda m, x: torch.stack([x[0] * x[1], x[2].tanh() - x[0], x[5]]))
    net = from_torch(features.double(), torch.zeros(6))
    y, jac = net.value_and_jacobian([1.0, 2, 0, 4, 5, 6])
    np.testing.assert_array_equal(y, [2, -1, 6])
    np.testing.assert_array_equal(jac, [[2, 1, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]])


def test_an_example_tells_what_no_layer_does():
    features = Own(lambda m, x: m.inner(torch.cat([x, x * x, x[:, :1] * x], -1)))
    net = from_torch(features.double(), np.zeros((5, 2)))
    assert (net.n_inputs, net.n_outputs) == (2, 8)
    with pytest.raises(ValueError, match=r"^Own cannot compute a sample of shape \(1, 6\).*Pass an example"):
        from_torch(features)
    assert from_torch(nn.Sequential(nn.Tanh(), nn.LayerNorm(3), nn.Tanh())).n_inputs == 3
    for example in (torch.zeros(4), torch.zeros(7, 4), np.zeros(4), [0.0] * 4, (torch.zeros(4),)):
        assert from_torch(nn.Sequential(nn.Tanh(), nn.Linear(4, 3)), example).n_inputs == 4
        assert from_torch(nn.Sequential(nn.Tanh(), nn.GLU(), nn.Linear(2, 3)), example).n_inputs == 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("make", ["trace", "script"])
def test_torchscript_is_read_through_what_it_computes(make, dtype):
    module = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 3))
    module = module.to(dtype).eval()
    examples = [torch.zeros(2, 6, dtype=dtype)] if make == "trace" else []
    script = getattr(torch.jit, make)(module, *examples)
    for read in (script, nn.Sequential(script)):
        assert_same(module, 6, dtype, from_torch(read))


@pytest.mark.filterwarnings("ignore")
def test_a_script_that_branches_is_refused():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            if bool(x.sum() > 0):
                return self.layer(x)
            return x

    with pytest.raises(ValueError, match=r"^Branches: item: it takes another way for other inputs"):
        from_torch(torch.jit.script(Branches()))


@pytest.mark.filterwarnings("ignore:`?torch.nn.utils.weight_norm")
@pytest.mark.parametrize(
    "computed",
    [
        torch.nn.utils.parametrizations.spectral_norm,
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.spectral_norm,
        torch.nn.utils.weight_norm,
    ],
)
def test_a_module_in_train_mode_is_read_as_in_eval_and_not_changed(computed):
    residual = Own(lambda m, x: x + m.drop(m.outer(m.norm(m.inner(x)))), (8, 6))
    residual.inner, residual.norm, residual.drop = (
        computed(residual.inner),
        nn.BatchNorm1d(8),
        nn.Dropout(0.5),
    )
    residual.outer.eval()
    module = nn.Sequential(residual).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    module(x)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flags = [part.training for part in module.modules()]
    net = from_torch(module)
    assert [part.training for part in module.modules()] == flags
    assert before.keys() == module.state_dict().keys()
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    expected = module.eval()(x).detach().numpy()
    np.testing.assert_allclose([net(row) for row in x.numpy()], expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_blocks_are_read_as_the_original():
    inner = torch.compile(nn.Sequential(nn.Linear(6, 6), nn.Tanh()))
    module = Own(lambda m, x: x + m.inner(x))
    module.inner = inner
    module.compile()
    assert from_torch(module).n_outputs == 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_becomes_float32(dtype):
    assert from_torch(copy.deepcopy(NETWORKS["residual"]).to(dtype)).dtype == np.float32


def branching(m, x):
    if x.sum() > 0:
        return m.inner(x)
    return m.gate(x)


def swallows(m, x):
    try:
        return m.inner(x).cumsum(-1)
    except Exception:
        return m.inner(x)


def hooked():
    module = Own(lambda m, x: m.inner(x))
    module.inner.register_forward_hook(lambda *_: None)
    return module


REFUSED = {
    "a branch": (Own(branching), r"^Own, test_torch_forward\.py line \d+: item: it takes another way"),
    "an unknown operation": (
        Own(lambda m, x: m.inner(x).cumsum(-1)),
        r"^Own, .*line \d+: cumsum: fastjac has no",
    ),
    "an unknown operation inside": (
        nn.Sequential(nn.Linear(6, 6), by_hand(nn.Sequential(nn.Hardshrink()))),
        r"^1, test_torch_forward\.py|^1 \(Own\)",
    ),
    "a try": (Own(swallows), r"cumsum: fastjac has no such operation"),
    "a convolution": (nn.Sequential(nn.Linear(6, 6), by_hand(nn.Conv1d(1, 1, 3))), r"."),
    "numbers outside": (
        Own(lambda m, x: m.inner(x) * sum(x[0].tolist())),
        "^Own computes something else for",
    ),
    "numpy": (
        Own(lambda m, x: m.inner(x) * torch.as_tensor(x.numpy().sum())),
        "^Own computes one sample, but no derivatives of three: Can't call numpy",
    ),
    "a mix of samples": (Own(lambda m, x: m.inner(x).softmax(0)), r"mixes the samples of a batch"),
    "a mean over the batch": (
        Own(lambda m, x: m.inner(x) - m.inner(x).mean(0)),
        "mixes the samples of a batch",
    ),
    "one sample of a batch": (Own(lambda m, x: m.inner(x)[0]), r"returns shape \(8,\) for 3 samples"),
    "sampling": (Own(lambda m, x: m.inner(x) + torch.randn(8)), r"line \d+: randn: it draws random numbers"),
    "dropout for good": (Own(lambda m, x: F.dropout(m.inner(x))), r"bernoulli_: it draws random numbers"),
    "batch statistics": (
        Own(lambda m, x: F.batch_norm(m.inner(x.repeat(2, 1)), None, None, training=True)[:1]),
        "native_batch_norm: it keeps no running statistics",
    ),
    "no running statistics": (
        nn.Sequential(Own(lambda m, x: m.inner(x)), nn.BatchNorm1d(8, track_running_stats=False)),
        r"^1 \(BatchNorm1d\) keeps no running statistics",
    ),
    "two outputs": (Own(lambda m, x: (m.inner(x), x)), "^Own returns a tuple, expected one tensor"),
    "a dictionary": (Own(lambda m, x: {"y": m.inner(x)}), "^Own returns a dict, expected one tensor"),
    "a constant": (Own(lambda m, x: m.gain[None]), "^Own returns what does not depend on its input"),
    "no derivative": (Own(lambda m, x: m.inner(x).round()), "round: fastjac has no such operation"),
    "a stopped derivative": (
        Own(lambda m, x: x + (m.outer(x) - x).detach(), (6, 6)),
        "detach: it stops the deriv",
    ),
    "a root": (by_hand(lambda h: h.abs().sqrt()), "(sqrt|abs): fastjac computes this only where"),
    "a gate that is stopped": (
        by_hand(lambda h: h * torch.sigmoid(h).detach()),
        "detach: it stops the derivative",
    ),
    "mixed entries": (by_hand(lambda h: h / (1 + torch.exp(-h.flip(1)))), "fastjac computes this only where"),
    "one activation for half of them": (
        by_hand(lambda h: torch.where(h > 100, 0.0, F.softplus(h))),
        "fastjac computes this only where",
    ),
    "an index of the input": (
        Own(lambda m, x: m.inner(x).gather(1, x.argsort(1))),
        "argsort|sort: fastjac has no such operation",
    ),
    "a power of itself": (
        by_hand(lambda h: h**h),
        "pow: its exponent depends on the input, expected a number",
    ),
    "an exponential": (by_hand(lambda h: 2**h), "its exponent depends on the input, expected a number"),
    "a hook": (hooked(), r"^inner \(Linear\) has the hook .*call remove\(\)"),
    "an own error": (
        Own(lambda m, x: m.outer(x)),
        r"^Own cannot compute a sample of shape \(1, 6\): mat1 and mat2",
    ),
    "no size": (
        nn.Sequential(nn.Tanhshrink()),
        "^Sequential does not tell how many inputs it has: pass an example",
    ),
    "attention": (
        Own(lambda m, x: nn.MultiheadAttention(6, 2).eval()(x, x, x)[0]),
        "it draws random numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_clear_no(name):
    module, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        from_torch(module)
