"""What the memory tests run in a process of its own: ``python -m support.memory_scripts NAME ARGUMENTS``.

Each prints what it is about to do, so that after a crash the last line tells where it was.
"""

import sys
import tracemalloc
from dataclasses import replace

import numpy as np

from support import graphs
from support.guard_pages import PAGE, guarded, guarded_copy, read_only
from support.oracles import Case, assert_right, near_corner

SHAPES = [
    (1, 1, 1),
    (1, 1),
    (2, 3, 2),
    (3, 5, 7),
    (7, 8, 9),
    (8, 8, 8),
    (15, 16, 17),
    (17, 33, 1),
    (1, 33, 17),
    (31, 32, 33),
    (64, 100, 10),
    (65, 7, 66),
    (500, 100, 10),
    (9, 500, 3),
    (3, 5, 40, 6, 11),
    (40, 5, 3, 5, 40),
    (33, 4),
    (20, 150, 140, 16),
    (2, 130, 140, 3),
    (3, 90, 200, 5),
]
HEADS = ["softmax", "log_softmax", "tanh"]


def calls(net, x, v, u, at):
    """Every method on guarded buffers; the results."""
    n, m, lead = net.n_inputs, net.n_outputs, x.shape[:-1]
    x, v, u = (read_only(guarded_copy(a, at)) for a in (x, v, u))

    def buffer(*shape):
        return guarded(lead + shape, net.dtype, at)

    net(x, out=buffer(m))
    net.jacobian(x, out=buffer(m, n))
    net.vjp(x, v, out=(buffer(m), buffer(n)))
    net.jvp(x, u, out=(buffer(m), buffer(m)))
    return net.value_and_jacobian(x, out=(buffer(m), buffer(m, n)))


def place_at_guard_pages(at):
    """Have each array of networks made from now on, workspaces included, next to inaccessible pages."""
    from fastjac import layers
    from fastjac.kernels import context, packing

    def zeros(size, dtype):
        return guarded(max(size, 1), dtype, at, 64)

    def integers(self, values):
        return self._keep(guarded_copy(values.astype(np.int64), at))

    def records(self, kind, count=1):
        self._keep(made := guarded(count, kind, at, 8))
        return made

    # The weights as they were given, which kernels read where merged ones do not serve.
    layers.read_only = lambda array, dtype: read_only(guarded_copy(array.astype(dtype), at))
    packing.aligned_zeros = context.aligned_zeros = zeros
    context.Arena.integers, context.Arena.records = integers, records


def assert_at_guard_pages(net, at):
    """Assert that all memory of a network that was called is where `place_at_guard_pages` puts it."""
    (context,) = net._calls.contexts.made
    for array in [*net.packed.arrays, *context.arena.arrays]:
        start = array.ctypes.data
        gap = start % PAGE if at == "start" else -(start + array.nbytes) % PAGE
        assert gap < 64, f"{array.dtype} {array.shape} is {gap} bytes from a guard page"


def guard(at, dtype, batch):
    """Run all methods with every array, the network's own included, next to inaccessible pages."""
    place_at_guard_pages(at)
    for widths in SHAPES:
        for head in HEADS:
            case = Case(widths, "relu", head, np.dtype(dtype).type)
            check_at_guard_pages(case, at, batch, near_corner, assert_right)


def guard_graphs(at, dtype, batch):
    """Do what `guard` does with networks that are graphs."""
    place_at_guard_pages(at)
    for case in graphs.PATHS.values():
        case = replace(case, dtype=np.dtype(dtype).type)
        check_at_guard_pages(case, at, batch, graphs.near_kink, graphs.assert_right)


def check_at_guard_pages(case, at, batch, is_unsure, check):
    """Run all methods of a network, and check its results."""
    print(f"{case}, arrays at the {at} of their pages, batch {batch}", flush=True)
    net, rng = case.network(), np.random.default_rng(0)
    lead = (int(batch),) if int(batch) else ()
    x, v, u = (rng.standard_normal((*lead, n)) for n in (net.n_inputs, net.n_outputs, net.n_inputs))
    x, v, u = (a.astype(net.dtype) for a in (x, v, u))
    y, jac = calls(net, x, v, u, at)
    # Numbers that are not finite take another way through a graph.
    calls(net, np.full_like(x, np.nan), v, u, at)
    assert_at_guard_pages(net, at)
    for i in np.ndindex(*lead):
        if not is_unsure(net, x[i]):
            check(net, x[i], y[i], jac[i])


def functional(at, dtype):
    """Run the functional interface with every raw array next to inaccessible pages."""
    import fastjac

    for widths in (widths for widths in SHAPES if len(widths) == 3):
        case = Case(widths, dtype=np.dtype(dtype).type)
        print(f"functional, {case}, arrays at the {at} of their pages", flush=True)
        arrays = [case.x(), *(a for pair in case.weights() for a in pair)]
        arrays = [read_only(guarded_copy(a, at)) for a in arrays]
        n, m = widths[0], widths[-1]
        out = guarded(m, dtype, at), guarded((m, n), dtype, at)
        assert_right(case.network(), case.x(), *fastjac.value_and_jacobian(*arrays, out=out))


def touch(at):
    """Touch the byte outside: the test of the guard itself."""
    import ctypes

    array = guarded(3, np.float64, at)
    print("inside", flush=True)
    ctypes.string_at(array.ctypes.data, array.nbytes)
    outside = array.ctypes.data + (array.nbytes if at == "end" else -1)
    print("outside", flush=True)
    ctypes.string_at(outside, 1)


def methods_with_out(net, x):
    """Return calls of all methods on buffers made beforehand, by name."""
    n, m = net.n_inputs, net.n_outputs
    y, jac, rows, columns = (np.zeros(shape, net.dtype) for shape in (m, (m, n), n, m))
    v, u, pair = np.ones(m, net.dtype), np.ones(n, net.dtype), (y, jac)
    vjp, jvp = (y, rows), (y, columns)
    return {
        "call": lambda: net(x, out=y),
        "value_and_jacobian": lambda: net.value_and_jacobian(x, out=pair),
        "jacobian": lambda: net.jacobian(x, out=jac),
        "vjp": lambda: net.vjp(x, v, out=vjp),
        "jvp": lambda: net.jvp(x, u, out=jvp),
    }


def allocations(dtype):
    """Count numba's allocations per call with ``out``: at most one record per array argument."""
    from numba import njit
    from numba.core.runtime import rtsys

    def counted(function, times):
        before = rtsys.get_allocation_stats()
        for _ in range(times):
            function()
        after = rtsys.get_allocation_stats()
        return (after.alloc - before.alloc) / times, (after.mi_alloc - before.mi_alloc) / times

    allocate = njit(lambda n: np.zeros(n)[0])
    allocate(3)
    assert counted(lambda: allocate(3), 10) == (1, 1), "the counters do not count"
    for widths in ((8, 32, 4), (500, 100, 10), (40, 5, 3, 5, 40)):
        case = Case(widths, dtype=np.dtype(dtype).type)
        net, x = case.network(), case.x()
        for name, method in methods_with_out(net, x).items():
            method()
            found = counted(method, 100)
            print(f"{widths} {name}: {found} allocations, records per call", flush=True)
            assert max(found) <= 4, name


def loop(dtype):
    """Count numba's allocations while a compiled loop calls the compiled routine: none."""
    from numba import njit
    from numba.core.runtime import rtsys

    from fastjac.kernels import routines, signatures
    from fastjac.kernels.context import Context
    from fastjac.kernels.llvm.intrinsics import address as address_of

    case = Case((20, 32, 5), dtype=np.dtype(dtype).type)
    net, x = case.network(), case.x()
    y, jac = net.value_and_jacobian(x)
    context = Context(net.packed)
    routine, address = routines.routine(net.dtype), context.address

    mode = signatures.VALUE_AND_JACOBIAN

    @njit
    def repeat(times, address, x, y, jac):
        for _ in range(times):
            routine(address, mode, 1, address_of(x), 0, address_of(y), address_of(jac))

    def counted(times):
        before = rtsys.get_allocation_stats()
        repeat(times, address, x, y, jac)
        after = rtsys.get_allocation_stats()
        return after.alloc - before.alloc, after.mi_alloc - before.mi_alloc

    counted(1)
    print(f"1 call: {counted(1)}, 1000 calls: {counted(1000)} allocations, records", flush=True)
    assert counted(1000) == counted(1)
    assert counted(1)[1] > 0, "the counters do not count"


def heap(dtype):
    """Measure the peak of Python's heap over thousands of calls with ``out``."""
    peaks = {}
    for widths in ((8, 32, 4), (500, 100, 10), (40, 5, 3, 5, 40)):
        case = Case(widths, dtype=np.dtype(dtype).type)
        net, x = case.network(), case.x()
        for name, method in methods_with_out(net, x).items():
            # CPython keeps up to 2000 freed tuples of each length; filling that store is no growth.
            for _ in range(5000):
                method()
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(3000):
                method()
            after, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            peaks[widths, name] = peak - before
            print(f"{widths} {name}: grew by {after - before} bytes, at most {peak - before}", flush=True)
    assert max(peaks.values()) < 4096, peaks


if __name__ == "__main__":
    {f.__name__: f for f in (guard, guard_graphs, functional, touch, allocations, loop, heap)}[sys.argv[1]](
        *sys.argv[2:]
    )
    print("done", flush=True)
