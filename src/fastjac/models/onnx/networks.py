"""The network of a tensor: a chain of layers where it is one, a graph otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from fastjac import graph
from fastjac.graph.folding import most_weights
from fastjac.graph.plan import GraphPlan
from fastjac.layers import Activation
from fastjac.models.folding import fold, has_head_last
from fastjac.models.limits import MOST_OPERATIONS, Budget
from fastjac.models.onnx.values import AnyStep, Base, Limits, Mean, Normalise, Spread
from fastjac.models.steps import Affine, Scale, Select, clip
from fastjac.network import Network


def network(
    base: Base,
    n_inputs: int | None,
    dtype: DTypeLike,
    output_names: Sequence[str] | None,
    budget: Budget,
) -> Network:
    """Return the network that computes a tensor.

    Raises
    ------
    ValueError
        If a step is part of an operation that fastjac does not have, or the network is larger than the file
        allows.
    """
    steps = base.path()
    if steps is not None and has_head_last(steps):
        return fold(steps, dtype, n_inputs, output_names=output_names, budget=budget)
    bases = base.ordered()
    size = n_inputs or _first_size(bases)
    net = Network(_value(bases, size, budget), dtype=dtype, output_names=output_names)  # type: ignore[arg-type]
    if isinstance(net.plan, GraphPlan):
        budget.check_derivatives(net.plan.derivatives)
    return net


def _first_size(bases: Sequence[Base]) -> int:
    """Return the number of inputs that the first weights take, where the file does not give it."""
    as_input = {id(bases[0])}
    for base in bases[1:]:
        if base.before and id(base.before[0]) in as_input:
            if isinstance(base.step, Affine):
                return len(base.step.w)
            if isinstance(base.step, Scale) and base.step.factor.size > 1:
                return base.step.factor.size
            if isinstance(base.step, (Activation, Limits, Scale)):
                as_input.add(id(base))
    raise ValueError("it does not say how many inputs it has")


def _value(bases: Sequence[Base], n_inputs: int, budget: Budget) -> graph.Value:
    """Return the last of some tensors as a value of `fastjac.graph`."""
    if len(bases) > MOST_OPERATIONS:
        raise ValueError(f"it has {len(bases)} operations, expected at most {MOST_OPERATIONS}")
    budget.spend(n_inputs)
    values = {id(bases[0]): graph.input(n_inputs)}
    # Tensors with entries that are the input's: selections of these become rows of the weights behind them.
    given = {id(bases[0])}
    for base in bases[1:]:
        inputs, step = [values[id(before)] for before in base.before], base.step
        is_given = any(id(before) in given for before in base.before)
        if is_given and (isinstance(step, (Select, Spread, Scale)) or step == "concatenate"):
            given.add(id(base))
        if isinstance(step, Affine):
            fan_in, fan_out = step.w.shape
            budget.spend_on_layer(fan_in, fan_out)
            if is_given:
                budget.spend(min(n_inputs * fan_out, most_weights(fan_in, fan_out)))
        try:
            value = _computed(step, inputs)
        except ValueError as error:
            raise ValueError(f"{base.where}: {error}") from None
        budget.spend(value.size)
        values[id(base)] = value
    return values[id(bases[-1])]


def _computed(step: AnyStep | None, inputs: Sequence[graph.Value]) -> graph.Value:
    """Return what a step computes of values."""
    x = inputs[0]
    if step == "concatenate":
        return graph.concatenate(inputs)
    if step in ("add", "multiply"):
        return (graph.add if step == "add" else graph.multiply)(*inputs)
    if isinstance(step, Affine):
        return graph.affine(x, step.w, step.b)
    if isinstance(step, Scale):
        if step.factor.size not in (1, x.size):
            raise ValueError(f"it takes {step.factor.size} inputs, but gets {x.size}")
        return x * step.factor + step.shift
    if isinstance(step, (Select, Spread)):
        return graph.select(x, step.places if isinstance(step, Select) else np.zeros(step.size, np.intp))
    if isinstance(step, Activation):
        return graph.apply(x, step)
    if isinstance(step, Limits):
        for part in clip(*step, "Clip"):
            x = _computed(part, [x])
        return x
    if isinstance(step, Mean):
        return graph.affine(x, np.full((step.size, 1), 1 / step.size))
    if step == "centre":
        return x - graph.affine(x, np.full((x.size, 1), 1 / x.size))
    if isinstance(step, Normalise):
        return (graph.layer_norm if step.centred else graph.rms_norm)(x, epsilon=step.epsilon)
    raise ValueError("it is part of no activation or normalisation that fastjac has")
