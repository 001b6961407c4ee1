"""Networks from PyTorch modules; torch is imported when one arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastjac.layers import Activation
from fastjac.models.folding import (
    Float64,
    Step,
    activation_of,
    affine,
    clip,
    computes_as,
    fold,
    normalisation,
    scale,
)
from fastjac.models.limits import warned
from fastjac.network import Network


def from_torch(module: Any) -> Network:
    """Return the network that a PyTorch module computes in eval mode.

    Parameters
    ----------
    module : torch.nn.Module
        A Sequential, nested at will, of Linear, activations, BatchNorm1d, Flatten, Dropout, Identity,
        Softmax and LogSoftmax; or one of these alone.

    Returns
    -------
    Network
        Of the module's flattened input, in float64 if any parameter is, else in float32.

    Raises
    ------
    TypeError
        If ``module`` is not a module.
    ValueError
        If it holds something else, or has a ``forward`` or hooks of its own.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    with torch.no_grad():
        steps = list(_steps(module, ""))
    wide = any(parameter.dtype == torch.float64 for parameter in module.parameters())
    return warned(fold(steps, np.float64 if wide else np.float32))


def _steps(module: Any, name: str) -> Iterator[Step]:
    from torch import nn

    where = f"{name} ({type(module).__name__})" if name else type(module).__name__
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        raise ValueError(f"{where} has no weights yet: call the module once first")
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(
            f"{where} has forward hooks, which may change what it computes: remove them, for instance "
            "with torch.nn.utils.remove_weight_norm"
        )
    if computes_as(module, nn.Sequential, "forward"):
        for key, child in module._modules.items():  # named_children leaves out what it has seen
            yield from _steps(child, f"{name}.{key}" if name else key)
        return
    for kind, steps in _LAYERS.items():
        if computes_as(module, getattr(nn, kind), "forward"):
            yield from steps(module, where)
            return
    raise ValueError(
        f"{where} is not a layer that fastjac reads ({', '.join(('Sequential', *_LAYERS))}). "
        "If its forward only chains such layers, pass torch.nn.Sequential of them; else export it with "
        "torch.onnx.export and use fastjac.load"
    )


def _array(tensor: Any) -> Float64:
    import torch

    if tensor.is_complex() or tensor.is_quantized:
        raise TypeError(f"a tensor has dtype {tensor.dtype}, expected real numbers")
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy(), np.float64)


def _linear(layer: Any, where: str) -> list[Step]:
    bias = None if layer.bias is None else _array(layer.bias)
    return [affine(_array(layer.weight).T, bias, where)]


def _batch_norm(layer: Any, where: str) -> list[Step]:
    if layer.running_mean is None:
        raise ValueError(f"{where} keeps no running statistics, so its output depends on the whole batch")
    gamma = 1.0 if layer.weight is None else _array(layer.weight)
    beta = 0.0 if layer.bias is None else _array(layer.bias)
    mean, variance = _array(layer.running_mean), _array(layer.running_var)
    return [normalisation(mean, variance, layer.eps, gamma, beta, where)]


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


def _softmax(layer: Any, where: str) -> list[Step]:
    if layer.dim not in (-1, 1, None):
        raise ValueError(f"{where} has dim {layer.dim}, expected -1")
    return [Activation("log_softmax" if "Log" in type(layer).__name__ else "softmax")]


def _nothing(layer: Any, where: str) -> list[Step]:
    return []


_Reader = Callable[[Any, str], list[Step]]


def _plain(name: str, parameter: Callable[[Any], float] = lambda layer: 0.0) -> _Reader:
    """Return the reader of a layer that is one of our activations."""
    return lambda layer, where: [activation_of(name, where, parameter(layer))]


_LAYERS: dict[str, _Reader] = {
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "Flatten": _flatten,
    "Dropout": _nothing,
    "AlphaDropout": _nothing,
    "Identity": _nothing,
    "ReLU": _plain("relu"),
    "LeakyReLU": _plain("leaky_relu", lambda layer: layer.negative_slope),
    "ELU": _plain("elu", lambda layer: layer.alpha),
    "Hardtanh": lambda layer, where: clip(layer.min_val, layer.max_val, where),  # ReLU6 is one
    "Tanh": _plain("tanh"),
    "Sigmoid": _plain("sigmoid"),
    "SiLU": _plain("silu"),
    "GELU": lambda layer, where: _plain("gelu_tanh" if layer.approximate == "tanh" else "gelu")(layer, where),
    "Softplus": _softplus,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
