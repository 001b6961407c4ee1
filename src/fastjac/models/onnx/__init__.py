"""Networks from ONNX files, which are read without trust in them."""

from fastjac.models.onnx.graph import read_onnx

__all__ = ["read_onnx"]
