"""The server answers its own page, the newest state first, and nobody else."""

import contextlib
import http.client
import signal
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

import fastjac
from fastjac.show.server import SEND_BUFFER, listen
from support.pages import FLIP, STATE, description, message, numbers, opened, served

X = np.zeros(64, np.float32)


@pytest.fixture(scope="module")
def url():
    with served("--port", 0) as (_, url):
        yield url


def status(url, path="/", address=None, **headers):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(address or parts.hostname, parts.port, timeout=30)
    try:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in {"Host": parts.netloc, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def closed(client):
    """Return the code and the reason that the server closes a connection with."""
    with pytest.raises(ConnectionClosed) as error:
        while True:
            client.recv(timeout=30)
    return error.value.rcvd.code, error.value.rcvd.reason


def test_the_page_is_there_and_loads_nothing_from_elsewhere(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    for path, kind in [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")]:
        connection.request("GET", path)
        with connection.getresponse() as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith(kind)
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert b"https:" not in response.read()
    connection.close()
    assert status(url, "/answers.py") == 404


def test_only_the_loopback_interface_is_served(url):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", urlsplit(url).port))


def test_a_host_that_is_not_ours_is_refused(url):
    port = urlsplit(url).port
    assert status(url, Host=f"localhost:{port}") == 200
    for host in (f"evil.example:{port}", f"127.0.0.2:{port}", "127.0.0.1.evil.example", "", "[", "user@"):
        assert status(url, Host=host) == 403, host


def test_with_a_host_its_addresses_are_served_but_no_names_of_others():
    with served("--port", 0, "--host", "0.0.0.0") as (_, url):
        port = urlsplit(url).port
        assert status(url, address="127.0.0.2", Host=f"127.0.0.2:{port}") == 200
        assert status(url, address="127.0.0.2", Host=f"evil.example:{port}") == 403


def test_another_pages_request_is_refused(url):
    assert status(url, Origin=url.rstrip("/")) == 200
    for origin in ("http://127.0.0.1:1", "https://" + urlsplit(url).netloc, "null", "http://evil.example"):
        assert status(url, Origin=origin) == 403, origin


@pytest.mark.parametrize(
    "arguments",
    [
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"origin": ""},
        {"token": ""},
        {"token": "wrong"},
        {"token": "\u00e9"},
    ],
)
def test_a_connection_from_elsewhere_is_refused(url, arguments):
    with pytest.raises(InvalidStatus) as error:
        opened(url, **arguments)
    assert error.value.response.status_code == 403


def test_each_server_has_a_token_of_its_own(url):
    with served("--port", 0) as (_, other):
        assert description(url)["token"] != description(other)["token"]


def test_a_state_is_answered(url):
    with opened(url) as client:
        client.send(message(41, STATE, 0, X))
        header, (_, *y) = numbers(client.recv(timeout=30))
    assert header == (41, STATE, 0)
    assert sum(y[:10]) == pytest.approx(1)
    assert len(y) == 10 + 10 * 64


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"", 1008, "a message has 0 bytes"),
        ("text", 1008, "a message is text"),
        (message(1, 9, 0, X), 1008, "a message is of kind 9"),
        (message(1, STATE, 0, X * np.nan), 1008, "not finite"),
        (bytes(100_000), 1009, ""),
    ],
)
def test_a_bad_message_closes_its_connection_and_no_other(url, data, code, reason):
    with opened(url) as bad, opened(url) as good:
        bad.send(data)
        found = closed(bad)
        good.send(message(5, STATE, 0, X))
        assert numbers(good.recv(timeout=30))[0] == (5, STATE, 0)
    assert found[0] == code
    assert reason in found[1]


def test_a_question_without_an_answer_closes_its_connection_and_says_why(tmp_path):
    path = tmp_path / "nan.npz"
    layers = [(np.full((2, 2), 1e308), None), (np.eye(2), None)]  # infinity times 0
    fastjac.save(fastjac.Network(layers, head="identity"), path)
    with served(path, "--port", 0) as (_, url), opened(url) as client:
        client.send(message(1, FLIP, 0, [9, 9], [0, 0], [1, 1]))
        code, reason = closed(client)
    assert code == 1008
    assert "NaN" in reason


def test_too_many_messages_a_second_close_the_connection(url):
    with opened(url, max_queue=None) as client:
        with pytest.raises(ConnectionClosed) as error:
            for sequence in range(1_000_000):
                client.send(message(sequence, STATE, 0, X))
        assert error.value.rcvd.code == 1008
        assert error.value.rcvd.reason == "more than 1000 messages a second"


def test_too_many_pages_are_turned_away(url):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(opened(url))
        with opened(url) as one_more:
            assert closed(one_more) == (1013, "100 pages are open already")
    with opened(url) as client:
        client.send(message(1, STATE, 0, X))
        assert numbers(client.recv(timeout=30))[0][0] == 1


def test_answers_are_sent_at_once_and_few_wait():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            # Linux doubles it.
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER


@pytest.fixture
def large(tmp_path):
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(784, 8)), None), (rng.normal(size=(8, 10)), None)]
    fastjac.save(fastjac.Network(layers), tmp_path / "large.npz")
    return tmp_path / "large.npz"


def test_a_slow_reader_gets_the_newest_state_and_few_of_the_others(large):
    sent = 400  # answers of 31 KB, which no buffer has room for
    with served(large, "--port", 0) as (_, url), opened(url) as client:
        for sequence in range(1, sent + 1):
            client.send(message(sequence, STATE, 0, np.full(784, sequence)))
            time.sleep(0.002)  # else the server replaces most before it sends any
        sequences = [0]
        while sequences[-1] < sent:
            sequences.append(numbers(client.recv(timeout=30))[0][0])
    assert sequences == sorted(set(sequences))
    assert len(sequences) < sent / 2


def test_control_c_ends_it_though_a_client_does_not_read(large):
    with served(large, "--port", 0) as (process, url), opened(url, close_timeout=1) as client:
        for sequence in range(900):
            client.send(message(sequence, STATE, 0, np.zeros(784)))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
