"""The records that Python fills in and the kernels read: sizes, addresses, and codes of what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastjac.layers import ACTIVATIONS

# Activation -> its code; the heads come last.
CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
IDENTITY, RELU, EXP, SQUARE = CODES["identity"], CODES["relu"], CODES["exp"], CODES["square"]
SOFTMAX, LOG_SOFTMAX = CODES["softmax"], CODES["log_softmax"]
# Nothing is multiplied by the slopes of these: those of their active units are 1.
UNSCALED = ("identity", "relu")

SIZE, ADDRESS, CODE, NUMBER = "size", "address", "code", "number"
# Record -> which of its fields are addresses.
ADDRESSES: dict[np.dtype[Any], tuple[str, ...]] = {}


def _record(**fields: str) -> np.dtype[Any]:
    kinds = {SIZE: "i8", ADDRESS: "i8", CODE: "i8", NUMBER: "f8"}
    record = np.dtype([(name, kinds[kind]) for name, kind in fields.items()], align=True)
    ADDRESSES[record] = tuple(name for name, kind in fields.items() if kind == ADDRESS)
    return record


# "Panels" are panel matrices, "vectors" are padded with zeros to whole panels. Where nothing is said else, an
# address is that of a vector or of panels of the network's kind of number.
#
# In a graph a layer is an affine map with its activation, or has no weights: an activation alone, or a value
# as it is. Its `w` holds w.T. Its `forward`, `raw`, `given`, `n_given` and `bound` are 0. Nothing reads
# `slopes` or what a block of samples has.
LAYER = _record(
    fan_in=SIZE,
    fan_out=SIZE,
    w=ADDRESS,  # panels: w.T, or w where `forward`; or w as it is, row-major, where `raw`
    forward=SIZE,  # whether w holds w rather than w.T
    rows=ADDRESS,  # panels: w for the forward pass of one sample, or 0 where w.T serves
    across=ADDRESS,  # panels: w where tangents are carried along
    skips=SIZE,  # reads only the rows of the units that are active in the layer so many before; 0: all rows
    raw=SIZE,
    b=ADDRESS,  # vector
    block_b=ADDRESS,  # one panel (fan_out, samples): each of them for all samples
    activation=SIZE,  # one of `CODES`
    function=CODE,  # machine code of the activation; 0 of a head
    parameter=NUMBER,
    prelu=ADDRESS,  # vector: the slopes of prelu, or 0
    block_prelu=ADDRESS,  # one panel (fan_out, samples): each of them for all samples, or 0
    flat=SIZE,  # whether the activation has slope 0 in a whole interval
    a=ADDRESS,  # vector: the layer's output
    slope=ADDRESS,  # vector: derivative of the activation at each unit, of the last layer what `gain` is
    slopes=ADDRESS,  # a vector for each sample of a block; `slope` is one of them
    block_a=ADDRESS,  # one panel (fan_out, samples), for as many samples as a panel is wide
    active=ADDRESS,  # int64: the units whose slope is not 0 ...
    count=SIZE,  # ... and how many they are
    given=ADDRESS,  # the maps of which this layer is made, if several were merged ...
    n_given=SIZE,
    bound=NUMBER,  # ... and the largest input for which nothing overflows between them, else 0
    shares=ADDRESS,  # of a softmax in a graph: what `shares` of the context is for a chain's; else 0
    pivot=SIZE,  # the same of `pivot`; else -1
)
GIVEN = _record(
    fan_in=SIZE,
    fan_out=SIZE,
    w=ADDRESS,  # row-major
    b=ADDRESS,  # vector
    z=ADDRESS,  # vector: the map's output
)
# One operation of a graph's tape, on values or on matrices of their derivatives; see `nodes`. A field that an
# operation does not have is 0.
NODE = _record(
    operation=SIZE,
    layer=SIZE,  # of AFFINE, APPLY and HEAD, of products with weights by one row, and of products with heads
    step=SIZE,  # of PRODUCT: which step
    rows=SIZE,  # of the matrices: of outputs or of inputs, as the tape goes; of GATHER the entries of `first`
    size=SIZE,  # entries of the value, columns of the matrices
    first=ADDRESS,  # what is read: a value's vector, or the panels of a matrix
    second=ADDRESS,  # vector: of ADD and MULTIPLY the other value, of SCALE and TIMES_SCALE the factors, of
    # NORMALISE ones, or 0 without the mean, of TIMES_NORMALISE what NORMALISE made, of HEAD_TIMES_W the
    # slopes of the layer before, or 0
    out=ADDRESS,  # what is written: a vector or panels, or 0 for the result. AFFINE and APPLY write to `a`
    start=SIZE,  # the first entry or column that COPY and MOVE read
    to=SIZE,  # and write
    adds=SIZE,  # whether MOVE adds to what is there
    index=ADDRESS,  # int64: the places of GATHER, SPREAD and PICK; vector: SCALE's shifts, TIMES_HEAD's ones
    epsilon=NUMBER,  # of NORMALISE
    number=NUMBER,  # one over the root that NORMALISE divided by
    source=ADDRESS,  # of TIMES_NORMALISE: the NODE of the NORMALISE
)
STEP = _record(
    layer=SIZE,  # whose units are summed over
    scalar=ADDRESS,  # panels (m, units) of the factor that is read one element at a time ...
    scalar_transposed=SIZE,  # ... or (units, m)
    scaled=SIZE,  # whether what wrote that has multiplied it by the slopes of the units
    m=SIZE,
    outputs=SIZE,  # m counts the network's outputs, less the spared one
    vector=ADDRESS,  # panels (units, n) of the factor that is read in vectors
    n=SIZE,
    table=ADDRESS,  # int64: that of the product, or 0 where it depends on the call
    gain=SIZE,  # by the slopes of which layer the columns are multiplied that are written, or -1
    head=SIZE,  # that is the last layer's w, and the head multiplies the product's columns
    out=ADDRESS,  # panels (m, n); 0 for the Jacobian itself
)
# A graph has no blocks of samples and no carried tangents: nothing reads the fields of these, nor `scaled`,
# `spares`, `panel` and `result`. Its `gain`, `shares` and `pivot` are those of the layer whose head is at
# work; `cotangent` and `tangent` are what `vjp` and `jvp` are given.
CONTEXT = _record(
    n_inputs=SIZE,
    n_outputs=SIZE,
    n_layers=SIZE,
    n_steps=SIZE,
    layers=ADDRESS,
    steps=ADDRESS,
    taken=SIZE,  # 1 while a call uses it
    next=ADDRESS,  # address of another context of the network, or 0
    finite=SIZE,  # 1 where all pre-activations are, and so all weights
    blocks=SIZE,  # the forward pass may take a panel's width of samples at a time: all weights are w.T
    x=ADDRESS,  # vector
    block_x=ADDRESS,  # one panel (N, samples)
    block_slope=ADDRESS,  # one panel of the widest layer
    block_shares=ADDRESS,  # one panel (M, samples)
    bests=ADDRESS,  # int64: the most probable class of each sample of a block
    stack=SIZE,  # rows of several samples of a block that the backward pass takes at once, or 0 ...
    stacks=SIZE,  # ... and whether those of Jacobians are taken so
    stacked=ADDRESS,  # panels (stack, units): the rows
    stacked_next=ADDRESS,  # the same for the layer before
    paths=ADDRESS,  # panels (M * N, units): products of the weights on each path, or 0 for most networks ...
    jacs=ADDRESS,  # ... and one panel (M * N, samples): a block's Jacobians
    stack_rows=ADDRESS,  # int64: byte offsets of the rows of results
    samples=SIZE,  # of a block: as a constant it would keep LLVM from vectorising short loops
    units=ADDRESS,  # int64: 0, 1, 2, ...
    gain=ADDRESS,  # vector: the head multiplies rows of the Jacobian as `_head` explains
    shares=ADDRESS,  # vector
    all_shares=ADDRESS,  # a vector for each sample of a block; `shares` is one of them
    pivot=SIZE,
    extra=ADDRESS,  # vector: shares @ rows
    mean=ADDRESS,  # vector: what is subtracted from the rows
    cotangent=ADDRESS,  # two vectors of the widest layer
    tangent=ADDRESS,
    panel_rows=ADDRESS,  # int64: byte offsets of the rows of a panel
    table=ADDRESS,  # int64: two byte offsets for each unit of a product
    jac_rows=ADDRESS,  # int64: byte offsets of the rows of the Jacobian that are computed
    scaled=ADDRESS,  # panels: the last layer's w.T multiplied by the head ...
    scaled_by_slopes=SIZE,  # ... and whether also by the slopes of its units
    zeros=ADDRESS,  # a row of a panel
    ones=ADDRESS,  # vector (M,), at least a row
    left=ADDRESS,  # panels (m, units): the scalar factor times the slopes
    spares=SIZE,  # the products from the last layer's w.T on keep one row for each output
    panel=ADDRESS,  # a panel of a raw w.T
    edge=ADDRESS,  # a panel, one row more than M: where columns past the end go
    partial=ADDRESS,  # a panel of the widest layer, at least a square: sums over some of the units
    compact=ADDRESS,  # panels (m, active units): the scalar factor tile by tile, or 0 where it is small
    first_cache=SIZE,  # bytes
    second_cache=SIZE,
    tangents=ADDRESS,  # panels (1 + N, units): a layer's output and tangents, or 0 if not carried
    following=ADDRESS,  # the same for the next layer
    outcome=ADDRESS,  # the same for the last layer
    carried=ADDRESS,  # that, or 0 where nothing was carried along
    result=ADDRESS,  # panels (N, M): the transposed Jacobian before the head, if the last step makes that
    output=ADDRESS,  # vector: the value of a graph, whose tapes follow; a chain has none
    value_tape=ADDRESS,
    n_value_tape=SIZE,
    vjp_tape=ADDRESS,
    n_vjp_tape=SIZE,
    jvp_tape=ADDRESS,
    n_jvp_tape=SIZE,
    jacobian_tape=ADDRESS,
    n_jacobian_tape=SIZE,
    plain_tape=ADDRESS,  # what makes the Jacobian where a value is not finite: from the outputs on
    n_plain_tape=SIZE,
)
