"""Weights to aligned panels, once per network, in the orientations that its plan reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.kernels.merging import merge
from fastjac.kernels.target import ALIGNMENT, NV, Target
from fastjac.layers import HEADS_ONLY, Layer
from fastjac.plan import Plan, Product

Array = NDArray[Any]

# Rows of several samples that a product has at most: whole tiles on all targets.
STACK = 48
# Whether units may be inactive -> up to how many outputs, and multiply-adds of whole vectors, the rows of
# several samples go into one product: from there on both ways take equally long.
STACKED = {True: (1, 700), False: (3, 2000)}
# The same for sums over paths, in multiply-adds of whole vectors.
BY_PATHS = {True: 1100, False: 2600}


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """Return ``size`` zeros whose first byte is on a 64-byte boundary."""
    size_bytes = max(size, 1) * dtype.itemsize
    block = np.zeros(size_bytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size_bytes].view(dtype)


def pack_panels(matrix: Array, target: Target) -> Array:
    """Return the (rows, cols) ``matrix`` as panels, one after the other."""
    rows, cols = matrix.shape
    width = target.panel_width(matrix.dtype)
    panels = aligned_zeros(rows * target.padded(cols, matrix.dtype), matrix.dtype).reshape(-1, rows, width)
    for number, panel in enumerate(panels):
        part = matrix[:, number * width : (number + 1) * width]
        panel[:, : part.shape[1]] = part
    return panels.reshape(-1)


def orientations(product: Product, transposed: bool) -> dict[Product, bool]:
    """Return for each factor of ``product`` whether it is stored transposed.

    A product is made in vectors along one side: it reads the factor on that side as (units, side), so
    stored that way, and the other factor one element at a time, so stored as it likes: weights as
    ``w.T``, products with their longer side in vectors.
    """
    found = {product: transposed}
    for made in reversed(list(product.steps())):  # Each before its factors.
        vector, scalar = roles(made, found[made])
        found[vector] = found[made]
        found[scalar] = scalar.left is not None and scalar.rows > scalar.cols
    return found


def roles(product: Product, transposed: bool) -> tuple[Product, Product]:
    """Return the factor that is read in vectors and the one that is read in single elements."""
    assert product.left is not None and product.right is not None
    return (product.left, product.right) if transposed else (product.right, product.left)


def _spine(root: Product, transposed: dict[Product, bool]) -> list[Product]:
    """Return the products from ``root`` to the left if all of them have one row for each output."""
    spine = []
    while root.left is not None:
        if transposed[root]:
            return []
        spine.append(root)
        root = root.left
    return spine


def transposing_pays(root: Product, units: int, itemsize: int) -> bool:
    """Return whether a Jacobian is made sooner as its columns, if ``units`` are summed over at last.

    Its vectors are fuller then where outputs are more, and the factor that is read in single elements has
    fewer rows. But the head multiplies the whole Jacobian, and not its left factor; that counts where units
    are few: 64-8-100 took 2.4 us, and 1.35 without.
    """
    return root.rows > root.cols and (units > root.cols or root.rows * units * itemsize > 1 << 18)


def carrying_pays(plan: Plan, itemsize: int, target: Target) -> bool:
    """Return whether the forward pass is faster if it carries along the tangents of all N inputs.

    It takes 1 + N multiply-adds for each weight behind the first layer then, but reads the weights once,
    which takes as long as about two multiply-adds where they come from the second cache. So it pays where
    the tangents would be computed in that order anyway, and where it does not need many more multiply-adds
    for weights that do not stay in the first cache; the limits are where both ways took equally long.
    """
    n_inputs, *hidden, n_outputs = plan.sizes
    if not hidden or n_inputs >= target.tile_rows:
        return False
    if n_inputs < n_outputs and plan.multiply_adds == plan.forward_multiply_adds:
        return True
    size = sum(a * b for a, b in pairwise(hidden)) * itemsize
    return size >= 1 << 16 and n_inputs <= max(2 + (size >= 1 << 19), n_outputs)


class Packed:
    """A network's weights in the layout that its plan reads, shared by all threads.

    With ``raw``, for two layers, those of the first stay as they are given on each call. Of others, affine
    maps in a row are merged: then ``plan`` is that of the shorter chain.
    """

    is_graph = False

    def __init__(self, layers: Sequence[Layer], plan: Plan, target: Target, raw: bool = False) -> None:
        self.chain = merge(layers)
        if len(self.chain) < len(layers):
            layers = [link.layer for link in self.chain]
            plan = Plan((plan.sizes[0], *(layer.b.size for layer in layers)))
        root = plan.root
        self.plan = plan
        self.layers = layers
        self.target = target
        self.raw = raw
        self.dtype = layers[0].w.dtype
        columns = root.left is not None and not raw
        if columns:
            columns = transposing_pays(root, plan.sizes[root.contracted + 1], self.dtype.itemsize)
        self.transposed = orientations(root, columns)
        self.spine = _spine(root, self.transposed)
        self.forward = [False] * len(layers)
        for product, transposed in self.transposed.items():
            if product.left is None:
                self.forward[product.first] = transposed
        # How many samples of a batch the forward pass takes at a time.
        self.together = 1 if raw or any(self.forward) else target.panel_width(self.dtype)
        self.weights = [
            pack_panels(layer.w if forward else layer.w.T, target)
            for layer, forward in zip(layers, self.forward, strict=True)
        ]
        # Inactive ReLUs are 0 and need no weights, unless 0 times a weight is NaN.
        self.skips = [False] + [
            before.activation.name == "relu" and not raw and bool(np.isfinite(layer.w).all())
            for before, layer in pairwise(layers)
        ]
        # To read the rows of the other units only, w is kept beside w.T, as where w.T is mostly padding.
        width = target.panel_width(self.dtype)
        self.rows = {
            i: pack_panels(layer.w, target)
            for i, layer in enumerate(layers)
            if ((self.skips[i] and layer.b.size > width) or layer.w.shape[0] <= width)
            and not (self.forward[i] or raw)
        }
        # The only probability of a softmax is 1 whatever the inputs are.
        self.is_constant = plan.sizes[-1] == 1 and layers[-1].activation.name in HEADS_ONLY
        carries = not (raw or self.is_constant) and carrying_pays(plan, self.dtype.itemsize, target)
        ready = self.rows | {i: self.weights[i] for i, forward in enumerate(self.forward) if forward}
        self.across = {
            i: ready[i] if i in ready else pack_panels(layer.w, target)
            for i, layer in enumerate(layers)
            if carries
        }
        self.paths = _paths(self) if paths_pay(self) else None

    @property
    def arrays(self) -> list[Array]:
        """All arrays of weights, each once."""
        given = [layer.w for link in self.chain for layer in link.given]
        paths = [] if self.paths is None else [self.paths]
        found = [*self.weights, *self.rows.values(), *self.across.values(), *given, *paths]
        return list({array.ctypes.data: array for array in found}.values())


def paths_pay(packed: Packed) -> bool:
    """Return whether a block's Jacobians are made sooner with samples in the lanes, as sums over paths.

    A path goes from an input through a hidden unit to an output. That takes as many multiply-adds as rows of
    several samples, in full vectors however few inputs there are, and the head multiplies M * N numbers of a
    sample, not M * H. 8-32-4 went from 187 to 140 ns a sample, in float32 from 131 to 84 (Zen 3).
    """
    if len(packed.layers) != 2 or packed.is_constant or packed.together == 1:
        return False
    n_inputs, units, _ = packed.plan.sizes
    most = BY_PATHS[packed.layers[0].activation.is_flat] * (packed.target.panel_width(packed.dtype) // NV)
    return n_inputs <= units and math.prod(packed.plan.sizes) <= most


def _paths(packed: Packed) -> Array | None:
    """Return the products of the weights of each path as panels (M * N, units), if none is out of range."""
    first, last = (layer.w for layer in packed.layers)
    limits = np.finfo(packed.dtype)
    with np.errstate(all="ignore"):
        products = np.einsum("nk,km->mnk", first, last)
        least = limits.tiny / limits.eps * np.einsum("nk,km->mnk", first != 0, last != 0)
        if not (np.isfinite(products) & (abs(products) >= least)).all():
            return None
    return pack_panels(products.reshape(-1, first.shape[1]), packed.target)


def stacking_pays(packed: Packed) -> bool:
    """Return whether the Jacobians of a block of samples are made sooner with their rows in one product.

    That fills the tiles where outputs are few, and a product begins once for many samples. But all units
    take part, also those that are not active.
    """
    *sizes, n_outputs = packed.plan.sizes
    from_outputs = 0 < len(packed.spine) == len(packed.layers) - 1
    if not from_outputs or packed.is_constant or n_outputs > STACK // 2:
        return False
    flat = any(layer.activation.is_flat for layer in packed.layers[:-1])
    lanes = packed.target.panel_width(packed.dtype) // NV
    outputs, vectors = STACKED[flat]
    return n_outputs <= outputs or n_outputs * sum(a * b for a, b in pairwise(sizes)) <= vectors * lanes
