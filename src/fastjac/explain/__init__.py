"""Answers from a network's Jacobian and outputs: how each input moves each output."""

from fastjac.explain.changes import Flip, flips, what_if

__all__ = ["Flip", "flips", "what_if"]
