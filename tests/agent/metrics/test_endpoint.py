"""The metrics server: clients that send half a request hold neither threads nor the port."""

from __future__ import annotations

import socket
import threading
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry

from agent.metrics import endpoint
from agent.metrics.endpoint import serve_metrics
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.waits


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(endpoint._BoundedServer, "request_within_s", 0.5)
    monkeypatch.setattr(endpoint._BoundedServer, "most", 4)
    with serve_metrics("127.0.0.1", 0, CollectorRegistry()) as url:
        yield url


@pytest.mark.slow
def test_half_requests_are_bounded_in_number_and_time(url: str) -> None:
    address = ("127.0.0.1", urlsplit(url).port or 0)
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(socket.create_connection(address))
            connection.sendall(b"GET /metrics HT")
        until(lambda: threading.active_count() > before)
        until(lambda: threading.active_count() <= before + 2 * 4)  # each with its timer
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
            assert answer.status == 200
        until(lambda: threading.active_count() == before)
