"""The pages of a station with two browsers on all of them, and the times that their requests take."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector
from rich import box
from rich.table import Table

from agent.metrics.endpoint import serve_metrics
from agent.web.ipc import PageOrder
from agent.web.page_feed import PageFeed
from agent.web.server_socket import listening
from tests.support import chromium
from tests.support.real_broker import free_port
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.metrics.loop_metrics import LoopMetrics

BROWSERS = "http" if chromium.PROGRAM is None else "chromium"
_OPEN_WITHIN_S = 120.0


@contextmanager
def watched(folder: Path, metrics: LoopMetrics, browsers: str, took_ms: dict[str, list[float]]) -> Iterator[PageFeed]:
    """The pages with two browsers, whose requests are noted at the end, and metrics that are fetched each second."""
    order = PageOrder(
        names=(),
        token=None,
        state_dir=str(folder),
        has_archive=True,
        shifts={"early": 360, "late": 840, "night": 1320},
        station="benchmark",
        version="0",
        log_level="warning",
        log_format="text",
    )
    port, log = free_port(), folder / "browsers"
    with ExitStack() as stack:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        url = stack.enter_context(serve_metrics("127.0.0.1", 0, registry))
        program = [sys.executable, str(Path(__file__).with_name("browsers.py")), browsers]
        command = [*program, f"{port}", url.rpartition(":")[2].partition("/")[0], str(folder / "set-up")]
        output = stack.enter_context(log.open("w"))
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, start_new_session=True)  # noqa: S603 - our own
        )
        stack.callback(process.kill)

        def has_said(words: str) -> bool:
            assert process.poll() is None, "the browsers have ended"
            return f"{words}\n" in log.read_text()

        until(lambda: has_said("set-up is over"), _OPEN_WITHIN_S)
        page = PageFeed(order, stack.enter_context(listening("127.0.0.1", port)))
        page.use_state(lambda: {"p50": metrics.percentiles(50), "p99": metrics.percentiles(99)})
        stack.enter_context(page)
        until(lambda: has_said("open"), _OPEN_WITHIN_S)
        yield page
        process.communicate()
        assert process.returncode == 0, "a browser has failed"
        took_ms.update(json.loads(log.read_text().splitlines()[-1]))


def by_kind(took_ms: Mapping[str, list[float]]) -> Table:
    """How long the requests took."""
    table = Table("request", box=box.MARKDOWN)
    for title in ("number", "p50", "p99"):
        table.add_column(title, justify="right")
    for kind, durations_ms in sorted(took_ms.items()):
        p50, p99 = np.percentile(durations_ms, (50, 99))
        table.add_row(kind, f"{len(durations_ms)}", f"{p50:.0f} ms", f"{p99:.0f} ms")
    return table
