"""A TCP line to the broker that can be slow, and can go half-open: both ends believe in it, and nothing passes."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_CHUNK_BYTES = 4096


@dataclass
class BadLine:
    """Listens on a port of its own and passes everything on, from ``with`` to its end.

    Attributes:
        to_port: The broker's, on this machine.
        latency_s: Of each direction.
        bytes_per_s: Of each direction and connection.
        joined: Connections so far.
    """

    to_port: int
    latency_s: float = 0.0
    bytes_per_s: float = float("inf")
    port: int = 0
    joined: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),))
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """From now on nothing passes, not even an end, and who comes anew is let wait."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def heal(self) -> None:
        """What was held back goes on its way."""
        self._loop.call_soon_threadsafe(self._flows.set)

    async def _serve(self, ready: threading.Event) -> None:
        self._flows, self._ended = asyncio.Event(), asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._ended.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.joined += 1
        writers = [writer]
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
            writers.append(far_writer)
            ways = [asyncio.ensure_future(self._carry(*way)) for way in ((reader, far_writer), (far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):  # the broker is away, or the test is over
            pass
        finally:
            for way in ways if len(writers) > 1 else []:
                way.cancel()
            for end in writers:
                end.close()
            for end in writers:
                with suppress(OSError):
                    await end.wait_closed()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction: each chunk leaves when the line has carried those before it, and arrives a latency later."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)
        arrivals = asyncio.ensure_future(self._arrive(under_way, writer))
        free_at_s = 0.0
        data = b"begin"
        try:
            while data and not arrivals.done():
                try:
                    data = await reader.read(_CHUNK_BYTES)
                except OSError:
                    data = b""
                free_at_s = max(free_at_s, self._loop.time()) + len(data) / self.bytes_per_s
                await under_way.put((free_at_s + self.latency_s, data))
                await asyncio.sleep(free_at_s - self._loop.time())
            await arrivals
        finally:
            arrivals.cancel()

    async def _arrive(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        data = b"begin"
        while data:
            at_s, data = await under_way.get()
            await asyncio.sleep(at_s - self._loop.time())
            await self._flows.wait()
            if writer.is_closing():
                return
            with suppress(OSError):
                writer.write(data)
                await writer.drain()
