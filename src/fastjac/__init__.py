"""A neural network's output together with its input-output Jacobian, at the hardware's speed.

Make a network from weights, from another framework's model, or from a file:

- `Network`: from arrays ``(w, b)`` of each layer.
- `from_torch`, `from_jax`, `from_keras`, `from_sklearn`, `from_params`: from PyTorch, JAX, Keras and
  scikit-learn, and from parameters alone.
- `load`, `save`: from ONNX, Keras, .nnet, .safetensors and .npz files, and to the last two. A file that
  holds no network is a `ModelError`.
- `graph`: networks that are no chain of layers, with skip connections, products and LayerNorm.

Ask it:

- ``net(x)``, ``net.value_and_jacobian(x)``, ``net.jacobian(x)``, ``net.vjp(x, v)``, ``net.jvp(x, u)``: for
  one sample or a batch, with ``out=`` into your own arrays, with ``threads=`` on several cores.
- ``net.bind(x, out)``: the same call again, checked once.
- ``net.sensitivity(x)``, ``net.iter_value_and_jacobian(x)``: for more samples than memory holds.
- `explain`: how much each input counts for each output, and what changing it does.
- `check_jacobian`: a comparison with finite differences.

Also here: `jacobian` and `value_and_jacobian`, for raw arrays that change between calls; `warmup`, which
compiles ahead; and `fastjac.embedding`, for networks inside compiled code and C programs.

Examples
--------
>>> import numpy as np
>>> import fastjac
>>> net = fastjac.Network([(np.eye(2), None), (np.ones((2, 1)), None)], head="identity")
>>> y, jac = net.value_and_jacobian([3.0, -1.0])
>>> y, jac
(array([3.]), array([[1., 0.]]))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastjac import graph, jacobian
from fastjac.check import check_jacobian
from fastjac.jacobian import value_and_jacobian
from fastjac.network import Network

if TYPE_CHECKING:
    from fastjac import embedding as embedding
    from fastjac import explain
    from fastjac.models import from_jax, from_keras, from_params, from_sklearn, from_torch
    from fastjac.models.files import ModelError, load, save
    from fastjac.precompile import warmup

__version__ = "0.1.0"
__all__ = [
    "ModelError",
    "Network",
    "check_jacobian",
    "explain",
    "from_jax",
    "from_keras",
    "from_params",
    "from_sklearn",
    "from_torch",
    "graph",
    "jacobian",
    "load",
    "save",
    "value_and_jacobian",
    "warmup",
]

# Imported when first used: a service that builds its network from arrays does not wait for them, nor for
# numba where the machine code is shipped.
_LATER = {
    "ModelError": "fastjac.models.files",
    "embedding": "fastjac.embedding",
    "explain": "fastjac.explain",
    "from_jax": "fastjac.models",
    "from_keras": "fastjac.models",
    "from_params": "fastjac.models",
    "from_sklearn": "fastjac.models",
    "from_torch": "fastjac.models",
    "load": "fastjac.models.files",
    "save": "fastjac.models.files",
    "warmup": "fastjac.precompile",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LATER[name])
    return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LATER})
