"""Networks from the models of other frameworks."""

from fastjac.models.jax import from_jax
from fastjac.models.keras import from_keras
from fastjac.models.params import from_params
from fastjac.models.sklearn import from_sklearn
from fastjac.models.torch import from_torch

__all__ = ["from_jax", "from_keras", "from_params", "from_sklearn", "from_torch"]
