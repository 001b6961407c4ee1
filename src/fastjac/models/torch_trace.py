"""PyTorch modules with a forward of their own, followed while they compute a sample."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.values import Value
from fastjac.models import recognise
from fastjac.models.tensors import Tensor, concatenated, constant
from fastjac.models.torch_operations import OPERATIONS

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Unread(ValueError):
    """A module computes something that fastjac has not."""


class _Unable(Exception):
    """A module cannot compute a sample of some shape."""


def traced(module: Any, example: Any) -> Value:
    """Return the value that a module computes in eval mode, of all its inputs one behind the other.

    Parameters
    ----------
    module : torch.nn.Module
        A copy of it computes.
    example : tensor, tuple of tensors or None
        One sample (n,), or samples (B, ...), of each argument of forward.

    Raises
    ------
    ValueError
        If it computes something that fastjac has not; the message names the place.
    """
    import torch

    module = _copy_for_eval(module)
    # In this order: as a batch of one, or as a single sample.
    attempts = _attempts(module, example)
    errors: list[BaseException | None] = []
    for inputs in attempts:
        try:
            with torch.no_grad():
                return _traced(module, inputs)
        except _Unable as error:
            errors.append(error.__cause__)
    first = errors[0]
    shapes = " and ".join(str(tuple(each.shape)) for each in attempts[0])
    hint = "" if example is not None else ". Pass an example, as in from_torch(module, torch.zeros(n))"
    text = str(first).strip().splitlines() or [type(first).__name__]
    raise ValueError(f"{_name(module)} cannot compute a sample of shape {shapes}: {text[0]}{hint}") from first


def _name(module: Any) -> str:
    return str(getattr(module, "original_name", type(module).__name__))  # a script's has that name


def _copy_for_eval(module: Any) -> Any:
    """Return a copy of a module in eval mode that nothing compiles, in float32 or float64."""
    import torch

    # Tensors with a history, such as weights that hooks compute, cannot be copied otherwise.
    memo = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    module = copy.deepcopy(module, memo).eval()
    for part in module.modules():
        if not isinstance(part, torch.jit.ScriptModule):
            part._compiled_call_impl = None
            for name, child in part._modules.items():
                if type(child).__name__ == "OptimizedModule":
                    part._modules[name] = child._orig_mod
    if any(each.dtype in (torch.float16, torch.bfloat16) for each in module.parameters()):
        module = module.float()
    return module


def _attempts(module: Any, example: Any) -> list[tuple[Any, ...]]:
    """Return the arguments to try, in order."""
    import torch

    first = next(module.parameters(), torch.zeros(0))
    if example is None:
        size = _input_size(module)
        if size is None:
            raise ValueError(
                f"{_name(module)} does not tell how many inputs it has: pass an example, as in "
                "from_torch(module, torch.zeros(n))"
            )
    given = torch.zeros(size) if example is None else example
    random = torch.Generator().manual_seed(0)
    inputs = []
    for each in given if isinstance(given, tuple) else (given,):
        shape = torch.as_tensor(each).shape
        # Numbers of its own: an example of zeros may meet a kink.
        inputs.append(torch.randn(shape, generator=random).to(first.device, first.dtype))
    if all(each.ndim > 1 for each in inputs):
        return [tuple(each[:1] for each in inputs)]
    batches = tuple(each[None] if each.ndim == 1 else each[:1] for each in inputs)
    return [batches, tuple(inputs)] if example is None else [tuple(inputs), batches]


def _input_size(module: Any) -> int | None:
    """Return the size of the vector that the first layer of a module takes."""
    for part in module.modules():
        for name in ("in_features", "num_features", "normalized_shape"):
            size = getattr(part, name, None)
            if isinstance(size, int) and size > 0:
                return size
            if isinstance(size, Sequence) and len(size) == 1:
                return int(size[0])
    weight = next((each for each in module.parameters() if each.ndim == 2), None)
    return None if weight is None else int(weight.shape[1])


def _traced(module: Any, inputs: tuple[Any, ...]) -> Value:
    import torch

    source = graph.input(sum(each.numel() for each in inputs))
    tracer = _tracer(module, source)
    at = 0
    for each in inputs:
        tracer.keep(each, Tensor(source, at + np.arange(each.numel()).reshape(tuple(each.shape))))
        at += each.numel()
    try:
        with tracer, _without_fused_attention():
            output = module(*inputs)
    except Exception as error:
        if tracer.error is None:
            raise _Unable from error
    if tracer.error is not None:  # The module itself may go on without what fastjac has not.
        raise tracer.error from None
    name = _name(module)
    if isinstance(output, (tuple, list)) and len(output) == 1:
        (output,) = output
    if not isinstance(output, torch.Tensor):
        kind = type(output).__name__
        raise Unread(f"{name} returns a {kind}, expected one tensor: wrap it in a module that does")
    result = tracer.read(output)
    if result is None:
        raise Unread(f"{name} returns what does not depend on its input")
    try:
        value = recognise.resolved(result.flat)
    except ValueError as error:
        raise Unread(str(error)) from None
    _check(module, inputs, value)
    return value


@contextlib.contextmanager
def _without_fused_attention() -> Iterator[None]:
    """Have attention computed in the operations that it consists of."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    is_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_enabled)


def _check(module: Any, inputs: tuple[Any, ...], value: Value) -> None:
    """Raise `Unread` if a module computes something else than a value for other samples, in a batch."""
    import torch

    random = torch.Generator().manual_seed(1)
    is_batch = all(each.ndim > 1 and len(each) == 1 for each in inputs)
    samples = []
    for each in inputs:
        shape = (3, *(each.shape[1:] if is_batch else each.shape))
        samples.append(torch.randn(shape, generator=random).to(each.device, each.dtype))
    try:
        found, v, gradients = _outputs(module, samples, is_batch)
    except Exception as error:
        raise Unread(f"{_name(module)} computes one sample, but no derivatives of three: {error}") from error
    if len(found) != 3 or found.numel() != 3 * value.size:
        raise Unread(
            f"{_name(module)} returns shape {tuple(found.shape)} for 3 samples. If its samples are no batch, "
            "pass an example of shape (n,)"
        )
    flat = [_array(torch.cat([each.reshape(3, -1) for each in every], -1)) for every in (samples, gradients)]
    y = _array(found).reshape(3, -1)
    if not recognise.check(value, flat[0], y, _array(v).reshape(y.shape), flat[1]):
        raise Unread(
            f"{_name(module)} computes something else for other samples, or has derivatives of its own: it "
            "mixes the samples of a batch, or it uses numbers outside of PyTorch, as tolist and numpy give "
            "them. If its samples are no batch, pass an example of shape (n,)"
        )


def _outputs(module: Any, samples: list[Any], is_batch: bool) -> tuple[Any, Any, list[Any]]:
    """Return a module's outputs for three samples, random weights of these, and gradients of the sums."""
    import torch

    with torch.enable_grad():
        leaves = [each.requires_grad_() for each in samples]
        inputs = [each.clone() for each in leaves]
        calls = [inputs] if is_batch else [[each[i] for each in inputs] for i in range(3)]
        outputs = [module(*call) for call in calls]
        found = [each[0] if isinstance(each, (tuple, list)) else each for each in outputs]
        y = found[0] if is_batch else torch.stack(found)
        v = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.device, y.dtype)
        gradients = torch.autograd.grad((v * y).sum(), leaves, allow_unused=True, materialize_grads=True)
    return y, v, list(gradients)


def _tracer(module: Any, source: Value) -> Any:
    """Return a mode of PyTorch that follows the operations on tensors that depend on ``source``."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves, tree_map

    class Tracer(TorchDispatchMode):  # type: ignore[misc]
        """Keeps, for each storage, what its numbers are; so a view needs no operation of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.contents: dict[int, Tensor | None] = {}
            self.alive: list[Any] = []  # Otherwise another tensor may get the same storage.
            self.error: Unread | None = None

        def keep(self, result: Any, traced: Tensor | None) -> None:
            """Note what the numbers of a tensor are."""
            storage = result.untyped_storage()
            size = storage.nbytes() // result.element_size()
            place = storage.data_ptr()
            if result.numel() == 0:
                return
            self.alive.append(result)
            if traced is None:
                self.contents[place] = None
                return
            value, places = traced
            flat = np.zeros(size, np.intp)
            before = self.contents.get(place) if result.numel() < size else None
            if before is not None:
                value, both = concatenated([before, traced.moved(np.ravel)], 0)
                flat, new = np.split(both, [before.places.size])
                places = new.reshape(places.shape)
            _window(flat, result)[...] = places
            self.contents[place] = Tensor(value, flat)

        def read(self, operand: Any) -> Tensor | None:
            """Return what the numbers of a tensor are, None if they are constants."""
            place = operand.untyped_storage().data_ptr() if operand.numel() else None
            if place not in self.contents:
                return None
            content = self.contents[place]
            if content is None:
                raise ValueError("what it takes from the operation before is none of its main results")
            return content.moved(lambda p: _window(p, operand).copy())

        def depends(self, operands: Sequence[Any]) -> bool:
            return any(
                each.numel() and each.untyped_storage().data_ptr() in self.contents for each in operands
            )

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
            name = function._schema.name.removeprefix("aten::")
            if torch.Tag.nondeterministic_seeded in function.tags and name not in OPERATIONS:
                self.refuse(name, "it draws random numbers, so its output is no function of the input alone")
            if not self.depends(tensors) or name in _OF_SHAPES:
                return function(*args, **kwargs)
            if name in ("_local_scalar_dense", "nonzero"):
                self.refuse("item", "it takes another way for other inputs, as a branch on a number does")
            is_written = _writes(function)
            before = {id(each): each.clone() for each in tensors if is_written and not self.depends([each])}
            result = function(*args, **kwargs)
            if function.is_view and name != "detach":
                return result
            base = name.removesuffix("_") if is_written else name
            if base not in OPERATIONS:
                self.refuse(name, "fastjac has no such operation")
            where = self.where(name)

            def operand(each: Any) -> Any:
                if not isinstance(each, torch.Tensor):
                    return each
                traced = self.read(each)
                return _array(before.get(id(each), each)) if traced is None else traced

            try:
                found = OPERATIONS[base](where, *tree_map(operand, args), **tree_map(operand, kwargs))
            except Exception as error:
                text = str(error)
                self.refuse(name, text.removeprefix(where).removeprefix(":").strip(), error)
            if is_written:
                self.write(args[0], found, before.get(id(args[0])))
                return result
            results = result if isinstance(result, (tuple, list)) else (result,)
            for each, traced in itertools.zip_longest(results, [found]):
                self.keep(each, traced)
            return result

        def write(self, target: Any, found: Tensor, before: Any) -> None:
            """Note what the numbers of a tensor are after they were overwritten."""
            storage = target.untyped_storage()
            size = storage.nbytes() // target.element_size()
            if before is not None and target.numel() < size:
                whole = torch.as_strided(target, (size,), (1,), 0)
                numbers = whole.clone()
                torch.as_strided(numbers, target.shape, target.stride(), target.storage_offset()).copy_(
                    before
                )
                self.contents[storage.data_ptr()] = constant(_array(numbers), source)
            self.keep(target, found.moved(lambda p: np.broadcast_to(p, tuple(target.shape))))

        def where(self, name: str) -> str:
            """Return the module and the user's line that compute, and the operation."""
            owner, line = "", ""
            names = {id(part): name for name, part in module.named_modules()}
            torch_folder = os.path.dirname(torch.__file__)
            for frame, number in traceback.walk_stack(None):
                file = frame.f_code.co_filename
                part = frame.f_locals.get("self")
                if not owner and isinstance(part, torch.nn.Module) and id(part) in names:
                    kind = _name(part)
                    owner = f"{names[id(part)]} ({kind})" if names[id(part)] else kind
                if not line and not file.startswith((torch_folder, _PACKAGE, "<")):
                    line = f", {os.path.basename(file)} line {number}"
                if frame.f_code is _traced.__code__:
                    break
            return f"{owner or _name(module)}{line}: {name}"

        def refuse(self, name: str, text: str, cause: Exception | None = None) -> None:
            self.error = self.error or Unread(f"{self.where(name)}: {text}")
            raise self.error from cause

    return Tracer()


# They take or change the shape of a tensor, but none of its numbers.
_OF_SHAPES = (
    *("empty_like", "zeros_like", "ones_like", "full_like"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
    *("squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_"),
)


def _writes(function: Any) -> bool:
    """Return whether an operation writes into its first argument."""
    arguments = function._schema.arguments
    alias = arguments[0].alias_info if arguments else None
    return alias is not None and bool(alias.is_write)


def _window(flat: NDArray[np.intp], of: Any) -> NDArray[np.intp]:
    """Return the part of a storage that a tensor shows."""
    strides = [step * flat.itemsize for step in of.stride()]
    return np.lib.stride_tricks.as_strided(flat[of.storage_offset() :], tuple(of.shape), strides)


def _array(operand: Any) -> Any:
    numbers = operand.detach().cpu()
    return (numbers.double() if numbers.is_floating_point() else numbers).numpy()
