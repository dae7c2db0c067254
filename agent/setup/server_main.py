"""The program of the set-up's process: serves the page, and does what its steps say."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import TYPE_CHECKING, Any

import cv2

from agent import logs
from agent.child_process import LONGEST_MESSAGE_BYTES
from agent.setup.order import SetupOrder
from agent.setup.routes import SetupRoutes
from agent.setup.steps import Steps
from agent.web.requests import server_of
from agent.web.token_auth import TokenAuth
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn

_ANSWER_FIRST_S = 0.5


def main(order: dict[str, Any], to_parent: socket.socket, listener: int) -> None:
    """See `agent.setup.session`."""
    cv2.setNumThreads(1)
    logs.set_up("info", "text", "setup")
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # it takes an answer that is cut off for an error

    def report(kind: str, **more: object) -> None:
        to_parent.sendall(json.dumps({"kind": kind, **more}).encode())

    with socket.socket(fileno=listener) as listening:
        try:
            asyncio.run(_serve(SetupOrder(**order), to_parent, listening, lambda: report("go")))
        except ShiftwatchError as error:
            report("failed", what=error.what, remedy=error.remedy)


async def _serve(
    order: SetupOrder, to_parent: socket.socket, listening: socket.socket, report_go: Callable[[], None]
) -> None:
    loop, is_over = asyncio.get_running_loop(), False
    with Steps(order, lambda: loop.call_soon_threadsafe(loop.call_later, _ANSWER_FIRST_S, stop)) as steps:
        server = server_of(SetupRoutes(steps, TokenAuth(order.token)).app(order.names))

        def stop() -> None:
            nonlocal is_over
            is_over = server.should_exit = True

        parent = asyncio.create_task(_end_with(to_parent, server))
        await server.serve(sockets=[listening])
        parent.cancel()
    if is_over:
        report_go()  # now, as the end of the loop waits for steps that are still under way


async def _end_with(to_parent: socket.socket, server: uvicorn.Server) -> None:
    """End when the parent closes its end."""
    to_parent.settimeout(0.0)
    while await asyncio.get_running_loop().sock_recv(to_parent, LONGEST_MESSAGE_BYTES):
        pass
    server.should_exit = True
