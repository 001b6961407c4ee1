"""Networks exported to C: built with nothing but a C compiler, they give the bits that Python gets."""

import itertools
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import fastjac
from fastjac.embedding.export import export, identifier
from support.oracles import Case

CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(CC is None, reason="needs a C compiler")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]

# Reads x from standard input, writes y and jac to standard output; all memory is where it is least handy.
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "NAME.h"

#define CANARY 64

int NAME_run(FILE *in, FILE *out)
{
    static TYPE x[NAMEUP_INPUTS], results[NAMEUP_OUTPUTS * (1 + NAMEUP_INPUTS)];
    TYPE *y = results, *jac = results + NAMEUP_OUTPUTS;
    unsigned char *room = malloc(sizeof(NAME_workspace) + 2 * CANARY + 1);
    NAME_workspace *workspace = (NAME_workspace *)(room + CANARY + 1);
    size_t i;
    if (fread(x, sizeof x, 1, in) != 1) return 10;
    for (i = 0; i < sizeof(NAME_workspace) + 2 * CANARY + 1; i++) room[i] = 0xA5;
    if (NAME_value_and_jacobian(workspace, x, y, jac) != NAMEUP_UNPREPARED) return 11;
    if (NAME_init(NULL) != NAMEUP_MISMATCH || NAME_init(workspace) != NAMEUP_OK) return 12;
    if (NAME_value_and_jacobian(workspace, NULL, y, jac) != NAMEUP_MISMATCH) return 13;
    if (NAME_value_and_jacobian(workspace, x, x, jac) != NAMEUP_MISMATCH) return 14;
    for (i = 0; i < 3; i++)
        if (NAME_value_and_jacobian(workspace, x, y, jac) != NAMEUP_OK) return 15;
    for (i = 0; i <= CANARY; i++)
        if (room[i] != 0xA5 || room[sizeof(NAME_workspace) + CANARY + (i ? i : 1)] != 0xA5) return 16;
    if (fwrite(results, sizeof results, 1, out) != 1) return 17;
    free(room);
    return 0;
}
"""
MAIN = "#include <stdio.h>\n{declared}\nint main(void) {{ return {called}; }}\n"


def written(net, folder, name):
    """Export a network as the command does."""
    return export(net.packed, folder, name, str(net), fastjac.__version__)


def build(folder, *nets):
    """Export the networks as net0, net1, ... and build a program that runs them all; its path."""
    sources = []
    for number, net in enumerate(nets):
        name = f"net{number}"
        written(net, folder, name)
        kind = {"float32": "float", "float64": "double"}[net.dtype.name]
        text = PROGRAM.replace("NAMEUP", name.upper()).replace("NAME", name).replace("TYPE", kind)
        (folder / f"{name}.c").write_text(text)
        sources += [f"{name}.c", f"{name}.o"]
    names = [f"net{number}_run" for number in range(len(nets))]
    main = MAIN.format(
        declared="\n".join(f"int {name}(FILE *, FILE *);" for name in names),
        called=" || ".join(f"{name}(stdin, stdout)" for name in names),
    )
    (folder / "main.c").write_text(main)
    done = subprocess.run(
        [CC, *STRICT, "-o", "program", "main.c", *sources, "-lm"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "program"


CASES = [
    Case((8, 32, 4)),
    Case((64, 100, 10), dtype=np.float32),
    Case((3, 40, 5, 60, 70), "gelu_tanh", "log_softmax"),
    Case((2, 30, 50), "leaky_relu(0.2)", "identity", dtype=np.float32),
    Case((17, 9), head="sigmoid"),
    # Tangents carried along in another order than from the inputs on, and along a bottleneck.
    Case((1, 256, 256, 256, 1), "softplus", "identity"),
    Case((3, 128, 128, 3), "tanh", "identity", dtype=np.float32),
    Case((2, 100, 100, 1), "tanh", "identity"),
    Case((64, 8, 32, 20)),
    Case((1536, 768, 64), dtype=np.float32),
    Case((20, 30, 40, 5), ("identity", "relu")),
]


def test_a_program_gets_the_bits_that_python_gets(tmp_path):
    nets, xs = [case.network() for case in CASES], [case.x() for case in CASES]
    program = build(tmp_path, *nets)
    for path in tmp_path.glob("*.o"):
        path.unlink()  # The weights are in the program.
    done = subprocess.run([program], input=b"".join(x.tobytes() for x in xs), capture_output=True)
    assert done.returncode == 0, done.returncode
    at = 0
    for net, x in zip(nets, xs, strict=True):
        for array in net.value_and_jacobian(x):
            assert done.stdout[at : at + array.nbytes] == array.tobytes(), net
            at += array.nbytes
    assert at == len(done.stdout)


def test_merged_maps_overflow_as_in_python(tmp_path):
    case = Case((20, 30, 40, 5), ("identity", "relu"))
    net, x = case.network(), case.x()
    program = build(tmp_path, net)
    for value in (1e308, np.inf, np.nan):
        x[3] = value
        done = subprocess.run([program], input=x.tobytes(), capture_output=True)
        y, jac = net.value_and_jacobian(x)
        np.testing.assert_array_equal(np.frombuffer(done.stdout), np.concatenate([y, jac.reshape(-1)]))


def test_only_the_two_functions_are_seen_from_outside(tmp_path):
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    _, code = written(CASES[2].network(), tmp_path, "deep")
    lines = subprocess.run([nm, code], capture_output=True, text=True, check=True).stdout.splitlines()
    symbols = {kind: set() for kind in "TUDB"} | {
        kind: {line.split()[-1] for line in found}
        for kind, found in itertools.groupby(
            sorted(lines, key=lambda line: line.split()[-2]), lambda line: line.split()[-2]
        )
    }
    assert symbols["T"] == {"deep_init", "deep_value_and_jacobian"}
    assert symbols["U"] <= {"cos", "log", "memcpy", "memmove", "memset", "sin", "sincos"}
    assert not symbols["D"] | symbols["B"]  # nothing that changes


def test_the_header_is_for_cpp_too(tmp_path):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    header, _ = written(CASES[0].network(), tmp_path, "small")
    subprocess.run([compiler, "-fsyntax-only", "-Wall", "-Werror", "-x", "c++", header], check=True)


@pytest.mark.parametrize(
    ("text", "name"),
    [("digits", "digits"), ("my-net 2", "my_net_2"), ("2nd", "net_2nd"), ("_x", "net__x"), ("é", "net__")],
)
def test_names_become_identifiers(text, name):
    assert identifier(text) == name
    assert re.fullmatch(r"[a-zA-Z]\w*", name, re.ASCII)


@pytest.mark.parametrize("name", ["", "2nd", "my-net", "_x", "naïve"])
def test_a_name_that_is_no_identifier_is_an_error(name, tmp_path):
    with pytest.raises(ValueError, match="C identifier"):
        written(CASES[0].network(), tmp_path, name)


def test_the_command_writes_what_export_does(tmp_path):
    net, model, folder = CASES[0].network(), tmp_path / "my-model.npz", tmp_path / "new" / "folder"
    fastjac.save(net, model)
    expected = [path.read_bytes() for path in written(net, tmp_path, "my_model")]
    command = [sys.executable, "-m", "fastjac", "export", str(model), "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {"my_model.h", "my_model.o"}
    assert [(folder / name).read_bytes() for name in ("my_model.h", "my_model.o")] == expected
    assert "my_model.o" in done.stdout


def test_the_command_tells_where_it_cannot_write(tmp_path):
    model = tmp_path / "model.npz"
    fastjac.save(CASES[0].network(), model)
    command = [sys.executable, "-m", "fastjac", "export", str(model), "-o", str(model)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("fastjac: cannot write")
