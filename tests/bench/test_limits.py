"""The machine's limits are sane, and a network's limit grows with everything that costs time."""

import itertools
import math
import re

import numpy as np
import pytest

from fastjac.bench import limits
from fastjac.bench import machine as measured
from fastjac.bench.limits import Level, Machine, limit_seconds, passes
from fastjac.kernels import caches

MACHINE = Machine(
    "a processor",
    {"float64": 25e9, "float32": 50e9},
    (
        Level("L1", 32 << 10, 160e9, 80e9),
        Level("L2", 1 << 20, 80e9, 40e9),
        Level("L3", 32 << 20, 60e9, 30e9),
        Level("memory", math.inf, 16e9, 8e9),
    ),
)


def test_the_seed_shape_by_hand():
    forward, backward = passes((500, 100, 10), (50,), "float64", MACHINE)
    assert forward.multiply_adds == 500 * 100 + 50 * 10
    assert forward.seconds == pytest.approx(50_500 * 8 / 80e9)
    assert forward.level == "weights from L2"
    assert backward.multiply_adds == 9 * 50 * 500
    assert backward.seconds == pytest.approx(225_000 / 25e9)


def test_float32_takes_half_where_the_level_is_the_same():
    double, single = (
        limit_seconds((500, 100, 10), (50,), dtype, MACHINE) for dtype in ("float64", "float32")
    )
    assert single == pytest.approx(double / 2)


def test_only_softmax_heads_spare_a_row():
    def rows(head):
        parts = passes((64, 32, 10), (32,), "float64", MACHINE, head)
        return sum(part.multiply_adds for part in parts) / (64 * 32) - 1 - 10 / 64

    assert [rows(head) for head in ("softmax", "log_softmax", "identity", "sigmoid")] == [9, 9, 10, 10]


def test_a_bottleneck_takes_the_cheapest_order():
    _, backward = passes((784, 256, 16, 256, 784), (256, 16, 256), "float64", MACHINE, "identity")
    assert backward.multiply_adds == 784 * 256 * 16 + 16 * 256 * 784 + 784 * 16 * 784


def test_few_inputs_are_carried_along():
    first, others = passes((3, 256, 256, 1), (256, 256), "float64", MACHINE, "identity")
    assert first.multiply_adds == 3 * 256
    assert first.seconds == pytest.approx(3 * 256 * 8 / 80e9)
    assert others.multiply_adds == 4 * (256 * 256 + 256)
    assert others.seconds == pytest.approx(4 * (256 * 256 + 256) / 25e9)
    _, others = passes((1, 256, 256, 1), (256, 256), "float64", MACHINE, "identity")
    assert others.seconds == pytest.approx((256 + 256 * 256 + 256) * 8 / 80e9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_more_units_never_take_less(dtype):
    sizes = (1, 10, 100, 1000)
    for n, h, m in itertools.product(sizes, repeat=3):
        here = limit_seconds((n, h, m), (h / 2,), dtype, MACHINE)
        assert here > 0
        for more in ((10 * n, h, m), (n, 10 * h, m), (n, h, 10 * m)):
            assert limit_seconds(more, (more[1] / 2,), dtype, MACHINE) >= here
        assert limit_seconds((n, h, m), (h,), dtype, MACHINE) >= here


def test_a_batch_takes_at_most_as_much_as_its_inputs_one_by_one():
    single = limit_seconds((500, 100, 10), (50,), "float64", MACHINE)
    batch = limit_seconds((500, 100, 10), (50,), "float64", MACHINE, batch=256)
    assert single < batch < 256 * single


def test_a_jacobian_larger_than_the_caches_is_bound_by_its_write():
    _, backward = passes((1000, 10, 1000), (1,), "float64", MACHINE, "identity", batch=100)
    assert backward.level == "jac to memory"
    assert backward.seconds == pytest.approx(100 * 8e6 / 8e9)


def test_a_single_layer_multiplies_forward_only():
    forward, backward = passes((20, 5), (), "float64", MACHINE)
    assert forward.multiply_adds == 100
    assert backward.multiply_adds == 0


def test_one_softmax_output_has_nothing_to_multiply_back():
    assert passes((20, 8, 1), (4,), "float64", MACHINE)[1].multiply_adds == 0


def test_cache_sizes_grow():
    sizes = limits.cache_sizes()
    assert list(sizes) == sorted(sizes)
    assert 1 << 10 < sizes[0] < 1 << 30


def test_usual_sizes_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.delenv("FASTJAC_CACHES", raising=False)
    monkeypatch.setattr(caches, "Path", lambda _: _Nowhere())
    assert caches.cache_sizes.__wrapped__() == caches.USUAL


class _Nowhere:
    def glob(self, pattern):
        return iter(())


@pytest.fixture(scope="module")
def machine():
    return limits.measure()


def test_this_machine_is_measured(machine):
    assert set(machine.peaks) == {"float32", "float64"}
    figures = [
        *machine.peaks.values(),
        *(rate for level in machine.levels for rate in (level.read, level.write)),
    ]
    assert all(1e7 < figure < 1e14 for figure in figures)
    assert machine.levels[-1].size == math.inf
    assert machine.level(0) == machine.levels[0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_reading_and_multiplying_do_what_is_timed(dtype):
    array = np.zeros(measured.LINE_BYTES * 2 // np.dtype(dtype).itemsize + 16, dtype)
    first = -array.ctypes.data % 64 // array.itemsize
    array[first:] = 1
    array = array[first:]
    lanes = measured.LINE_BYTES // array.itemsize
    assert measured._run_read(array, 2, 3) == 1 + 3 * 2 * lanes
    # acc = acc / 2 + 1 / 2 tends to 1 from every start
    assert measured._run_multiply_adds(array, 100) == lanes
    # LLVM leaves out a chain whose numbers it knows.
    made = measured._run_multiply_adds.inspect_asm().values()
    counts = [len(re.findall(r"\b(?:vfmadd\w+|fmla|v?mulp[ds])\b", code)) for code in made]
    assert all(count % measured.CHAINS == 0 < count for count in counts), counts
    for write in (measured._run_write, measured._run_stream):
        array[:] = 1
        write(array, 1, 1)
        assert not array[:lanes].any()
        assert array[lanes:].all()
