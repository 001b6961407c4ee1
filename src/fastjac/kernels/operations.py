"""The codes of the operations on a graph's tapes; see `nodes` for what each does."""

# On values.
AFFINE, APPLY, HEAD, SCALE, ADD, MULTIPLY, COPY, GATHER, NORMALISE = range(9)
# On matrices.
(
    PRODUCT,
    TIMES_W,
    HEAD_TIMES_W,
    TIMES_HEAD,
    HEAD_TIMES,
    TIMES_SCALE,
    TIMES_NORMALISE,
    MOVE,
    SPREAD,
    PICK,
    CLEAR,
    TRANSPOSE,
) = range(12)
