"""Figures over HTTP, for Prometheus to fetch; on threads of their own: nobody who asks keeps the loop waiting."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from agent.errors import MetricsError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector
    from typing_extensions import Self

log = logging.getLogger(__name__)

_PATH = "/metrics"
_PATIENCE_S = 10.0


class MetricsEndpoint:
    """Answers from enter to exit: memory, processor time and open files of this process, and what `tell` adds.

    Args:
        host: Address to listen on.
        port: TCP port; 0 takes any that is free.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        port = self._port if self._server is None else self._server.server_address[1]
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}{_PATH}"

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            MetricsError: The port is in use, or the address is not one of this device.
        """
        try:
            self._server = _Server(self._host, self._port, self._registry)
        except OSError as error:
            raise MetricsError(
                what=f"metrics cannot be served at {self.url}: {error.strerror or error}",
                remedy="give each station a metrics.port of its own (`ss -ltnp` shows who has it), "
                "and an address of this device as metrics.host",
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()
        log.info("metrics at %s", self.url)
        return self

    def tell(self, figures: Collector) -> None:
        """Answer with these figures, too."""
        self._registry.register(figures)

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry = registry
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        del request
        has_gone = isinstance(sys.exc_info()[1], OSError)  # or says nothing
        log.log(logging.DEBUG if has_gone else logging.ERROR, "no metrics for %s", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != _PATH:
            self.send_error(404, explain=f"metrics are at {_PATH}")
            return
        text = generate_latest(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - http.server's names
        log.debug(format, *args)
