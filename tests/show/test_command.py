"""`fastjac show` says in one line what is wrong with a call, and ends when it is told to."""

import importlib.util
import re
import signal
import socket

import numpy as np
import pytest

import fastjac
from fastjac.__main__ import main
from support.pages import description, served


def refused(capsys, *arguments):
    """Return the line that a call with a mistake prints."""
    assert main(["show", "--no-browser", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "websockets"])
def test_a_missing_extra_gives_the_line_to_install_it(missing, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    assert "pip install 'fastjac[show]'" in refused(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "7x9"], "shape is (7, 9), but the network takes 64 inputs"),
        (["--shape", "8"], "--shape is '8', expected rows x columns"),
        (["--names", "a,b"], "--names has 2 names, but the network takes 64 inputs"),
        (["--range", "0"], "--range is '0', expected two numbers"),
        (["--range", "1:0"], "ranges has one that is not two finite numbers"),
        (["--range", "nan:1"], "ranges has one that is not two finite numbers"),
        (["--range", "0:1,0:1"], "ranges has shape (2, 2), expected (2,) or (64, 2)"),
        (["--port", "65536"], "--port is 65536, expected 0 to 65535"),
        (["--host", "192.0.2.1"], "cannot listen at 192.0.2.1"),
        (["nothing.npz"], "nothing.npz"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, capsys):
    assert message in refused(capsys, *arguments)


def test_a_port_in_use_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"cannot listen at 127.0.0.1, port {port}" in refused(capsys, "--port", port)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(sent):
    with served("--port", 0) as (process, url):
        process.send_signal(sent)
        code = process.wait(timeout=20)
    assert code == (0 if sent == signal.SIGINT else -sent)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(re.search(r":(\d+)/", url)[1])))


def test_the_page_knows_what_the_call_says(tmp_path):
    path = tmp_path / "net.npz"
    fastjac.save(fastjac.Network([(np.eye(2), None)], head="identity", output_names=["u", "v"]), path)
    with served(path, "--port", 0, "--names", "age, income", "--range", "0:9,2:3") as (_, url):
        known = description(url)
    expected = {"inputs": ["age", "income"], "outputs": ["u", "v"], "low": [0, 2], "high": [9, 3]}
    assert {name: known[name] for name in expected} == expected
    assert known["shape"] is None
    with served("--port", 0) as (_, url):
        known = description(url)
    assert known["shape"] == [8, 8]
    assert known["low"] == [0] * 64 and known["high"] == [1] * 64
    assert known["fit"]
