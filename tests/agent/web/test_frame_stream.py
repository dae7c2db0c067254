"""What all viewers share, when one of them leaves."""

from __future__ import annotations

import asyncio
import mmap
import socket

import pytest

from agent.web.dashboard import Dashboard
from agent.web.frame_stream import FrameStream
from agent.web.ipc import MEMORY_BYTES, PageReport, SharedImage

STATE = PageReport("state", {}).as_bytes()
SOON_S, WAIT_S, LATE_S = 0.4, 10.0, 60.0


async def gone(*waiting: asyncio.Task[bytes | None]) -> None:
    """As the server does when browsers have gone: cancelled in each round of the event loop, until they end."""
    while any(not each.done() for each in waiting):
        for each in waiting:
            each.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("rounds", range(8))
def test_browsers_that_go_while_news_arrive_hold_up_no_other(rounds: int) -> None:
    """They go this many rounds of the event loop after the news."""
    agent, page = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with agent, page, mmap.mmap(-1, MEMORY_BYTES) as memory:
        stream = FrameStream(page, SharedImage(memory), Dashboard())

        async def watch() -> None:
            listening = asyncio.create_task(stream.listen())
            staying, *going = (asyncio.create_task(stream.picture_after("", each)) for each in (SOON_S, *[LATE_S] * 5))
            await asyncio.sleep(0)
            agent.send(STATE)
            for _ in range(rounds):
                await asyncio.sleep(0)
            await gone(*going)
            assert await staying is None
            agent.send(STATE)
            while stream.updates < 2:
                await stream.updates_after(stream.updates)
            listening.cancel()

        loop = asyncio.new_event_loop()
        task = loop.create_task(watch())
        try:
            loop.run_until_complete(asyncio.wait({task}, timeout=WAIT_S))
            assert task.done(), "one has waited in vain"
            task.result()
        finally:
            loop.close()  # unlike `asyncio.run`, also with tasks that never end
