"""A neural network's output together with its input-output Jacobian, at the hardware's speed."""

from fastjac import jacobian
from fastjac.check import check_jacobian
from fastjac.jacobian import value_and_jacobian
from fastjac.network import Network

__version__ = "0.1.0"
__all__ = ["Network", "check_jacobian", "jacobian", "value_and_jacobian"]
