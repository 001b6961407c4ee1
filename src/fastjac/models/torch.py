"""Networks from PyTorch modules; torch is imported when one arrives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastjac.layers import Activation
from fastjac.models.folding import fold, has_head_last, of_value
from fastjac.models.steps import Float64, Step, activation_of, affine, clip, computes_as, normalisation, scale
from fastjac.models.torch_trace import traced
from fastjac.network import Network

_Reader = Callable[[Any, str], list[Step]]


def from_torch(module: Any, example: Any = None) -> Network:
    """Return the network that a PyTorch module computes in eval mode.

    Parameters
    ----------
    module : torch.nn.Module
        A Sequential of layers, or any other module: its operations are followed while it computes a sample.
        A ScriptModule too.
    example : tensor, or tuple of tensors, optional
        A sample (n,) or samples (B, ...), one for each argument of ``forward``; only the shapes matter.
        Default: as many numbers as the first layer takes.

    Returns
    -------
    Network
        Of the module's flattened inputs, one behind the other, in float64 if any parameter is, else in
        float32.

    Raises
    ------
    TypeError
        If ``module`` is not a module.
    ValueError
        If it computes something that fastjac has not, or has hooks of its own; the message names the place.

    Notes
    -----
    A copy of the module computes, also of one in train mode, as it does in eval mode. Parametrizations,
    pruning and the old weight_norm and spectral_norm are read as they are in eval mode; a module from
    torch.compile is read as the original.

    The operations are followed for samples as they come. At the end the graph is compared with the module on
    three more samples, so a module that takes another way for each sample, or mixes the samples of a batch,
    is refused.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    wide = any(parameter.dtype == torch.float64 for parameter in module.parameters())
    dtype = np.float64 if wide else np.float32
    with torch.no_grad():
        steps = list(_steps(module, ""))
    chain = [step for step in steps if step is not None]
    if len(chain) == len(steps) and has_head_last(chain):
        return fold(chain, dtype, None if example is None else _sample_size(example))
    return of_value(traced(module, example), dtype)


def _sample_size(example: Any) -> int:
    """Return how many numbers a sample has, of an example as `from_torch` takes it."""
    if isinstance(example, tuple):
        return sum(map(_sample_size, example))
    shape = np.shape(example)
    return int(np.prod(shape if len(shape) < 2 else shape[1:]))


def _steps(module: Any, name: str) -> Iterator[Step | None]:
    """Yield the steps of a module, None for one that has to be followed while it computes."""
    import torch
    from torch import nn

    if isinstance(module, torch.jit.ScriptModule):
        yield None
        return
    _check_ready(module, name)
    if type(module).__name__ == "OptimizedModule":  # torch.compile's, which keeps the original.
        module = module._orig_mod
        _check_ready(module, name)
    if computes_as(module, nn.Sequential, "forward"):
        for key, child in module._modules.items():  # named_children leaves out what it has seen
            yield from _steps(child, f"{name}.{key}" if name else key)
        return
    where = _where(module, name)
    reader = _reader(module)
    if reader is not None:
        yield from reader(module, where)
        return
    for inner, child in module.named_modules():
        _check_ready(child, f"{name}.{inner}".strip("."))
    refusal = _refusal(module, where)
    if refusal is not None:
        raise ValueError(refusal)
    yield None


def _check_ready(module: Any, name: str) -> None:
    """Raise ValueError if a module has no weights yet, or hooks of its user's."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        raise ValueError(f"{_where(module, name)} has no weights yet: call the module once first")
    for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
        if not _computed_by(hook):
            raise ValueError(
                f"{_where(module, name)} has the hook {getattr(hook, '__qualname__', hook)}, which may "
                "change its output: call remove() on the handle that registering it returned"
            )


def _where(module: Any, name: str) -> str:
    kind = type(module).__name__
    return f"{name} ({kind})" if name else kind


def _reader(module: Any) -> _Reader | None:
    from torch import nn

    kinds = (kind for kind in _LAYERS if computes_as(module, getattr(nn, kind), "forward"))
    return _LAYERS.get(next(kinds, ""))


def _refusal(module: Any, where: str) -> str | None:
    """Return the error text for a module that is, or has in it, a layer that fastjac never computes."""
    from torch import nn

    known = f"a layer that fastjac reads ({', '.join(('Sequential', *_LAYERS))}, or what computes with such)"
    never = (nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.Embedding, nn.EmbeddingBag)
    for name, child in module.named_modules():
        if type(child).__module__.startswith("torch.ao."):
            inner = where if child is module else f"{where}, and in it {_where(child, name)}"
            return f"{inner} is quantized, or made for it: pass the module of floats that it was made from"
        if isinstance(child, never):
            if child is module:
                return f"{where} is not {known}"
            return f"{where} has a forward of its own, and in it {_where(child, name)}, which is not {known}"
    return None


def _computed_by(hook: Any) -> str | None:
    """Return the name of the parameter that a hook of PyTorch's own computes before each call."""
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    if isinstance(hook, BasePruningMethod):
        return str(hook._tensor_name)
    return str(hook.name) if isinstance(hook, (SpectralNorm, WeightNorm)) else None


def _array(module: Any, name: str, where: str) -> Float64 | None:
    """Return a parameter as it is in eval mode, None if the module has none.

    Computing one may change buffers, as spectral_norm does in train mode; here a copy computes it.
    """
    import torch

    hooks = [hook for hook in module._forward_pre_hooks.values() if _computed_by(hook) == name]
    if len(hooks) > 1:
        raise ValueError(f"{where} has {len(hooks)} hooks that compute its {name}, expected 1")
    if name in getattr(module, "parametrizations", {}):
        tensor = copy.deepcopy(module.parametrizations[name]).eval()()
    elif not hooks:
        tensor = getattr(module, name)
    elif hasattr(hooks[0], "apply_mask"):
        tensor = hooks[0].apply_mask(module)
    elif hasattr(hooks[0], "n_power_iterations"):
        tensor = hooks[0].compute_weight(module, do_power_iteration=False)
    else:
        tensor = hooks[0].compute_weight(module)
    if tensor is None:
        return None
    if tensor.is_meta:
        raise ValueError(f"{where}: its {name} is on the device meta, which keeps no numbers")
    if tensor.is_complex() or tensor.is_quantized:
        raise TypeError(f"{where}: its {name} has dtype {tensor.dtype}, expected real numbers")
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy(), np.float64)


def _linear(layer: Any, where: str) -> list[Step]:
    w = _array(layer, "weight", where)
    return [affine(np.empty((0, 0)) if w is None else w.T, _array(layer, "bias", where), where)]


def _batch_norm(layer: Any, where: str) -> list[Step]:
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, gamma, beta = (_array(layer, name, where) for name in names)
    if mean is None or variance is None:
        raise ValueError(f"{where} keeps no running statistics, so its output depends on the whole batch")
    return [
        normalisation(
            mean, variance, layer.eps, 1.0 if gamma is None else gamma, 0.0 if beta is None else beta, where
        )
    ]


def _flatten(layer: Any, where: str) -> list[Step]:
    if layer.start_dim not in (0, 1) or layer.end_dim != -1:
        raise ValueError(f"{where} flattens axes {layer.start_dim} to {layer.end_dim}, expected 1 to -1")
    return []


def _softplus(layer: Any, where: str) -> list[Step]:
    # Above its threshold PyTorch returns z itself; from 20 on that is softplus to 2e-9.
    if layer.threshold < 20:
        raise ValueError(f"{where} has threshold {layer.threshold}, expected 20 or more")
    beta = layer.beta
    return [scale(beta, 0, where), Activation("softplus"), scale(1 / beta, 0, where)]


def _prelu(layer: Any, where: str) -> list[Step]:
    slopes = _array(layer, "weight", where)
    return [activation_of("prelu", where, np.empty(0) if slopes is None else slopes)]


def _softmax(layer: Any, where: str) -> list[Step]:
    if layer.dim not in (-1, 1, None):
        raise ValueError(f"{where} has dim {layer.dim}, expected -1")
    return [Activation("log_softmax" if "Log" in type(layer).__name__ else "softmax")]


def _plain(name: str, parameter: Callable[[Any], float] = lambda layer: 0.0) -> _Reader:
    """Return the reader of a layer that is one of our activations."""
    return lambda layer, where: [activation_of(name, where, parameter(layer))]


_LAYERS: dict[str, _Reader] = {
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "Flatten": _flatten,
    **dict.fromkeys(("Dropout", "AlphaDropout", "Identity"), lambda layer, where: []),
    "ReLU": _plain("relu"),
    "LeakyReLU": _plain("leaky_relu", lambda layer: layer.negative_slope),
    "ELU": _plain("elu", lambda layer: layer.alpha),
    "Hardtanh": lambda layer, where: clip(layer.min_val, layer.max_val, where),  # ReLU6 is one
    "Tanh": _plain("tanh"),
    "Sigmoid": _plain("sigmoid"),
    "SiLU": _plain("silu"),
    "GELU": lambda layer, where: _plain("gelu_tanh" if layer.approximate == "tanh" else "gelu")(layer, where),
    "Softplus": _softplus,
    "SELU": _plain("selu"),
    "CELU": _plain("celu", lambda layer: layer.alpha),
    "PReLU": _prelu,
    "Hardsigmoid": _plain("hard_sigmoid"),
    "Hardswish": _plain("hard_swish"),
    "Mish": _plain("mish"),
    "Softsign": _plain("softsign"),
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
