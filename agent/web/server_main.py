"""The program of the page's process: listens to the agent, and serves browsers."""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
from pathlib import Path
from typing import Any

import cv2

from agent import logs
from agent.web.dashboard import Dashboard
from agent.web.frame_stream import FrameStream
from agent.web.gallery import Gallery
from agent.web.ipc import PageOrder, SharedImage
from agent.web.past_results import PastResults
from agent.web.requests import server_of
from agent.web.routes import Routes
from agent.web.token_auth import TokenAuth


def main(order: dict[str, Any], to_agent: socket.socket, memory: int, listener: int) -> None:
    """See `PageProcess`."""
    cv2.setNumThreads(1)
    with socket.socket(fileno=listener) as listening:
        page = PageOrder(**order)
        logs.set_up(page.log_level, page.log_format, page.station)
        logs.log_crashes()
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # malformed requests are not worth a line in our log
        asyncio.run(_serve(page, to_agent, SharedImage(mmap.mmap(memory, 0)), listening))


async def _serve(order: PageOrder, to_agent: socket.socket, shared: SharedImage, listening: socket.socket) -> None:
    dashboard = Dashboard()
    stream = FrameStream(to_agent, shared, dashboard)
    state_dir = Path(order.state_dir)
    gallery = Gallery(state_dir / "archive") if order.has_archive else None
    about = {"station": order.station, "version": order.version}
    past = PastResults(state_dir, order.shifts)
    routes = Routes(stream, dashboard, gallery, past, TokenAuth(order.token), state_dir, about)
    server = server_of(routes.app(order.names))
    await asyncio.gather(stream.listen(), stream.ask(), server.serve(sockets=[listening]))
