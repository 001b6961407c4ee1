"""The compiled part: micro-kernel, packing and the fused routine."""
