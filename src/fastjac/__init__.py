"""A neural network's output together with its input-output Jacobian, at the hardware's speed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastjac import graph, jacobian
from fastjac.check import check_jacobian
from fastjac.jacobian import value_and_jacobian
from fastjac.network import Network

if TYPE_CHECKING:
    from fastjac import explain
    from fastjac.models import from_keras, from_params, from_sklearn, from_torch
    from fastjac.models.files import ModelError, load, save
    from fastjac.precompile import warmup

__version__ = "0.1.0"
__all__ = [
    "ModelError",
    "Network",
    "check_jacobian",
    "explain",
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

# Imported when first used: a service that builds its network from arrays does not wait for them.
_LATER = {
    "ModelError": "fastjac.models.files",
    "explain": "fastjac.explain",
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
    return sorted({*globals(), *__all__})
