"""Answers from a network's Jacobian and outputs: how each input moves each output."""

from fastjac.explain.attribution import Attribution
from fastjac.explain.changes import Flip, flips, what_if
from fastjac.explain.gradients import (
    importance,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smooth_grad,
)

__all__ = [
    "Attribution",
    "Flip",
    "flips",
    "importance",
    "input_x_gradient",
    "integrated_gradients",
    "saliency",
    "smooth_grad",
    "what_if",
]
