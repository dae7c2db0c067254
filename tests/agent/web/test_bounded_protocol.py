"""Half requests and too many connections: they end in time, and browsers get through meanwhile."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("uvicorn")

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from agent.web.bounded_protocol import BoundedProtocol
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALVES = {
    "nothing": b"",
    "half a line": b"GET /",
    "half a header": b"GET / HTTP/1.1\r\nHost: local",
    "half a body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    "half the second request": WHOLE + b"GET / HTTP/1.1\r\n",
}


class Quick(BoundedProtocol):
    request_within_s = 0.3
    most = 4


async def _echo(request: Request) -> PlainTextResponse:
    await request.body()
    return PlainTextResponse("here")


async def _ticks() -> AsyncIterator[str]:
    while True:
        yield "tick\n"
        await asyncio.sleep(0.05)


async def _stream(_: Request) -> StreamingResponse:
    return StreamingResponse(_ticks())


@contextmanager
def served() -> Iterator[int]:
    app = Starlette(routes=[Route("/", _echo, methods=["GET", "POST"]), Route("/stream", _stream)])
    config = uvicorn.Config(
        app, http=Quick, loop="asyncio", lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def ended(connection: socket.socket) -> bool:
    """Whether the server ends it, after what it answers."""
    connection.settimeout(5)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
def test_a_request_that_does_not_arrive_whole_is_ended(half: bytes) -> None:
    with served() as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(half)
        assert ended(connection)


@pytest.mark.slow
def test_a_request_that_arrives_byte_by_byte_is_ended_all_the_same() -> None:
    with served() as port, socket.create_connection(("127.0.0.1", port)) as connection:
        began_s = time.monotonic()
        with suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(200):
                connection.sendall(b"G")
                time.sleep(0.02)
        assert time.monotonic() - began_s < 3


@pytest.mark.slow
def test_an_answer_may_take_longer() -> None:
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(WHOLE.replace(b"/ ", b"/stream ", 1))
        ticks, began_s = 0, time.monotonic()
        while time.monotonic() < began_s + 3 * Quick.request_within_s:
            ticks += connection.recv(4096).count(b"tick")
        assert ticks > 5


@pytest.mark.slow
def test_connections_are_bounded_and_a_browser_gets_through_meanwhile() -> None:
    with ExitStack() as stack:
        port = stack.enter_context(served())
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(20)]
        browser = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        browser.sendall(WHOLE)
        assert browser.recv(4096).startswith(b"HTTP/1.1 200")
        assert all(ended(connection) for connection in silent[:15])
