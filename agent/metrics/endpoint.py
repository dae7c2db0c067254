"""Serves metrics to Prometheus over HTTP, on threads of their own."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from agent.errors import MetricsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)


@contextmanager
def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> Iterator[str]:
    """Serve what a registry collects; gives the URL.

    Args:
        host: Address to listen on.
        port: TCP port; 0 takes any that is free.
        registry: May still be filled after the start.

    Raises:
        MetricsError: The port is in use, or the address is not one of this device.
    """

    class Server(_BoundedServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        server = make_server(host, port, make_wsgi_app(registry), Server, _Handler)
    except OSError as error:
        raise MetricsError(
            what=f"metrics cannot be served at {_url(host, port)}: {error.strerror or error}",
            remedy="give each station a metrics.port of its own (`ss -ltnp` shows which process uses it), "
            "and an address of this device as metrics.host",
        ) from error
    threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()
    url = _url(host, server.server_port)
    log.info("metrics at %s", url)
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


class _BoundedServer(ThreadingWSGIServer):
    """Each client has a limited time, however slowly it sends; one too many takes the place of the oldest."""

    request_within_s = 10.0
    most = 16

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401 - wsgiref's own
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(*args, **more)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's types
        with self._lock:
            if len(self._open) >= self.most:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _end(oldest)
            self._open[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's types
        timer = threading.Timer(self.request_within_s, _end, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            with self._lock:
                self._open.pop(request, None)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # a silent client must not hold a thread and a file descriptor for ever

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            log.debug("a metrics client disconnected or timed out", exc_info=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - http.server's names
        log.debug(format, *args)
