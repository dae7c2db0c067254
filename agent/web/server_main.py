"""The program of the page's process: hears the agent, serves browsers; it is started by `process`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import uvicorn

from agent import logs
from agent.child_process import die_with
from agent.web.dashboard import Dashboard
from agent.web.frame_stream import FrameStream
from agent.web.gallery import Gallery
from agent.web.ipc import LONGEST_MESSAGE_BYTES, PageOrder, SharedImage
from agent.web.routes import Routes
from agent.web.token_auth import TokenAuth

_NICENESS = 10
"""The inspection goes first."""
_CONNECTIONS = 64
_LONGEST_HEADER_BYTES = 16 * 1024
BY = "web"
"""Who gave a command, or marked a picture, here."""


def main() -> None:
    """In the new process; arguments: the agent's id, the descriptors of socket, memory and listening socket."""
    parent, line, memory, listener = (int(argument) for argument in sys.argv[1:])
    die_with(parent)
    with suppress(OSError):  # a sandbox may forbid it
        os.nice(_NICENESS)
    cv2.setNumThreads(1)
    with socket.socket(fileno=line) as to_agent, socket.socket(fileno=listener) as listening:
        order = PageOrder.from_bytes(to_agent.recv(LONGEST_MESSAGE_BYTES))
        logs.set_up(order.log_level, order.log_format, order.station)
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # what strangers send is not our news
        asyncio.run(_serve(order, to_agent, SharedImage(memory), listening))


async def _serve(order: PageOrder, to_agent: socket.socket, room: SharedImage, listening: socket.socket) -> None:
    board = Dashboard()
    live = FrameStream(to_agent, room, board)
    state_dir = Path(order.state_dir)
    gallery = Gallery(state_dir / "archive", BY) if order.has_archive else None
    about = {"station": order.station, "version": order.version}
    site = Routes(live, board, gallery, TokenAuth(order.token), state_dir, about)
    server = uvicorn.Server(
        uvicorn.Config(
            site.app(order.names),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_LONGEST_HEADER_BYTES,
        )
    )
    await asyncio.gather(live.listen(), live.ask(), server.serve(sockets=[listening]))
