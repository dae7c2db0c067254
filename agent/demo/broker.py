"""An MQTT broker for the demo, in a thread of this process, on a free port of the loopback interface."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from calibration.errors import SettingError, install_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_TIMEOUT_S = 10.0


@contextmanager
def embedded_broker() -> Iterator[int]:
    """Run an MQTT 3.1.1 broker; yields its port on 127.0.0.1.

    Raises:
        SettingError: amqtt is not installed, or the broker does not start.
    """
    try:
        from amqtt.broker import Broker  # noqa: PLC0415 - an extra that only the demo needs
    except ImportError as error:
        raise SettingError(
            what="the demo needs amqtt, a broker in Python",
            remedy=f"install it: {install_extra('demo')}",
        ) from error
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    port = _free_port()
    loop = asyncio.new_event_loop()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def started() -> Broker:
        # Made in the loop, because its futures belong to the loop that runs then; with another one it ends after 5 s.
        broker = Broker(config, loop=loop)
        await broker.start()
        return broker

    thread = threading.Thread(target=loop.run_forever, name="broker", daemon=True)
    thread.start()
    try:
        broker = asyncio.run_coroutine_threadsafe(started(), loop).result(_START_TIMEOUT_S)
        try:
            yield port
        finally:
            asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(_START_TIMEOUT_S)
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(_START_TIMEOUT_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_START_TIMEOUT_S)
        if not thread.is_alive():
            loop.close()


async def _cancel_others() -> None:
    """Cancel the tasks that the broker leaves behind, so that none is destroyed while it waits."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
