"""Nothing is touched outside the arrays, and nothing is allocated with ``out``."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs mmap and mprotect")


def run(*arguments, **environment):
    """Run a part of the script in a process of its own; return its exit status and its text."""
    process = subprocess.run(
        [sys.executable, "-m", "support.memory_scripts", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return process.returncode, process.stdout, process.stderr


def assert_clean(*arguments, **environment):
    code, out, err = run(*arguments, **environment)
    last = (out.splitlines() or ["nothing"])[-1]
    assert code >= 0, f"read or write outside an array (signal {-code}) in: {last}"
    assert code == 0, f"failed in: {last}\n{err}"
    assert last == "done"


@pytest.mark.parametrize("at", ["start", "end"])
def test_the_guard_catches_a_touch_of_one_byte_outside(at):
    code, out, _ = run("touch", at)
    assert code < 0
    assert out.split() == ["inside", "outside"]


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", ["0", "35"])
def test_a_network_touches_nothing_outside_its_arrays(at, dtype, batch):
    assert_clean("guard", at, dtype, batch)


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", ["0", "5"])
def test_a_graph_touches_nothing_outside_its_arrays(at, dtype, batch):
    assert_clean("guard_graphs", at, dtype, batch)


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_functional_interface_touches_nothing_outside_its_arrays(at, dtype):
    assert_clean("functional", at, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_call_with_out_allocates_no_more_than_one_record_per_argument(dtype):
    assert_clean("allocations", dtype, NUMBA_NRT_STATS="1")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_compiled_loop_allocates_nothing(dtype):
    assert_clean("loop", dtype, NUMBA_NRT_STATS="1")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_calls_with_out_leave_the_heap_as_it_is(dtype):
    assert_clean("heap", dtype)
