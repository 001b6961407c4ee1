"""Networks from the models of other frameworks."""

from fastjac.keras_reader import from_keras
from fastjac.params_reader import from_params
from fastjac.sklearn_reader import from_sklearn
from fastjac.torch_reader import from_torch

__all__ = ["from_keras", "from_params", "from_sklearn", "from_torch"]
