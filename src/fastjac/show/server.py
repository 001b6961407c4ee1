"""Serves the page, and answers its questions: the newest of each kind, however slow the reader is."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import secrets
import socket
import time
from importlib import resources
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from fastjac.show.answers import Answers, BadMessage, Kind, Question

MOST_CLIENTS = 100
MOST_A_SECOND = 1000  # messages of one client
LONGEST_REASON = 120  # characters, which a closing frame has room for
SEND_BUFFER = 1 << 16  # bytes of answers that the system keeps for a client
SHUTDOWN = 0.3  # seconds that clients get for saying goodbye
LOOPBACK = ("127.0.0.1", "::1", "localhost")
FILES = {"page.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"{POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # With these the page's clock is exact to 5 microseconds.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at ``host`` and ``port``, 0 for any free one.

    Raises
    ------
    OSError
        If it cannot.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.create_server(address[:2], family=family, backlog=MOST_CLIENTS)
    # Connections inherit both. What waits in a buffer is old when it arrives. Without the second option an
    # answer may wait until the client acknowledges the one before, with its next message; asyncio sets it on
    # no socket that does not name its protocol.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def serve(answers: Answers, listener: socket.socket, host: str) -> None:
    """Serve until a signal ends it: Ctrl-C raises KeyboardInterrupt, within a second."""
    config = uvicorn.Config(
        application(answers, host),
        ws="websockets-sansio",
        ws_max_size=answers.largest_message,
        ws_per_message_deflate=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
    )
    _Server(config).run([listener])


def application(answers: Answers, host: str) -> ASGIApp:
    """Return the application that serves ``host``: a name or an address, or all of the machine's."""
    token = secrets.token_urlsafe()
    description = json.dumps({**answers.description, "token": token}).replace("<", "\\u003c")
    clients = _Clients(answers, token)
    texts = {name: (resources.files(__package__) / name).read_text("utf-8") for name in FILES}
    texts["page.html"] = texts["page.html"].replace("{}", description, 1)

    def page(request: Request) -> Response:
        name = request.url.path.strip("/") or "page.html"
        return Response(texts[name], media_type=FILES[name], headers=HEADERS)

    routes = [Route(path, page) for path in ("/", "/page.js", "/page.css")]
    return _Guard(Starlette(routes=[*routes, WebSocketRoute("/live", clients.serve)]), host)


class _Guard:
    """Lets through what comes from the page itself, and nothing that another page sends.

    A name that an attacker's DNS points to this machine comes in the Host header, hence that check.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.any_address = host in ("0.0.0.0", "::", "")
        self.names = {*LOOPBACK, (socket.gethostname() if self.any_address else host).lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        needs_origin = scope["type"] == "websocket"
        if self._knows(host) and (origin == f"http://{host}" or (origin is None and not needs_origin)):
            await self.app(scope, receive, send)
        elif needs_origin:
            await WebSocket(scope, receive, send).close()  # Status 403.
        else:
            await PlainTextResponse("Host or Origin is not this server's", 403)(scope, receive, send)

    def _knows(self, host: str) -> bool:
        with contextlib.suppress(ValueError):
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or (self.any_address and bool(ipaddress.ip_address(name)))
        return False


class _Clients:
    """Answers the pages that are open."""

    def __init__(self, answers: Answers, token: str) -> None:
        self.answers = answers
        self.token = token
        self.count = 0

    async def serve(self, client: WebSocket) -> None:
        """Answer one client until it goes, or does what no page of ours does."""
        if not hmac.compare_digest(client.query_params.get("token", "").encode(), self.token.encode()):
            await client.close()  # Status 403.
            return
        await client.accept()
        if self.count >= MOST_CLIENTS:
            await client.close(1013, f"{MOST_CLIENTS} pages are open already")
            return
        self.count += 1
        newest: dict[Kind, Question] = {}
        arrived = asyncio.Event()
        work = [self._receive(client, newest, arrived), self._answer(client, newest, arrived)]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ValueError as error:  # A bad message, or one that has no answer.
            await client.close(1008, str(error)[:LONGEST_REASON])
        except WebSocketDisconnect:
            pass
        finally:
            self.count -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, client: WebSocket, newest: dict[Kind, Question], arrived: asyncio.Event) -> None:
        """Keep the newest question of each kind."""
        second, count = 0, 0
        while True:
            message = await client.receive()
            if message["type"] == "websocket.disconnect":
                return
            now = int(time.monotonic())
            second, count = now, count + 1 if now == second else 1
            if count > MOST_A_SECOND:
                raise BadMessage(f"more than {MOST_A_SECOND} messages a second")
            if message.get("bytes") is None:
                raise BadMessage("a message is text, expected bytes")
            question = self.answers.read(message["bytes"])
            newest[question.kind] = question
            arrived.set()

    async def _answer(self, client: WebSocket, newest: dict[Kind, Question], arrived: asyncio.Event) -> None:
        """Answer one question after another; what arrives while an answer is sent replaces what waits."""
        while await arrived.wait():
            arrived.clear()
            while newest:
                question = newest.pop(min(newest))
                if question.kind == Kind.STATE:  # Takes less than handing it to a thread does.
                    answer = self.answers.answer(question)
                else:
                    answer = await asyncio.to_thread(self.answers.answer, question)
                await client.send_bytes(answer)


class _Server(uvicorn.Server):
    """A server whose end no client can delay."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        def abort() -> None:
            for connection in list(self.server_state.connections):
                connection.transport.abort()

        asyncio.get_running_loop().call_later(SHUTDOWN, abort)
        await super().shutdown(sockets)
