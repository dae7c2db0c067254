"""Two browsers on all pages of a station, and Prometheus: ``python browsers.py chromium|http PAGE METRICS FOLDER``.

Serves a set-up first, on the port of the page. Prints a line when both have opened it and it is over, a line when they
have opened all pages of the station, and, when its input ends, how long each request took, as JSON.

Yields to everything else on this machine, since browsers are on other devices.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
from browsing import Chromium, Client, Timing

from agent.child_process import lower_priority
from agent.demo.conveyor import parts
from agent.setup.before_running import new_order, set_up_station
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator

_BROWSERS = 2
_KINDS: dict[str, type[Chromium | Client]] = {"chromium": Chromium, "http": Client}
_PAUSE_S = 0.3
_WITHIN_S = 60.0
_FILTERS: tuple[dict[str, str], ...] = (
    {"verdict": "not_ok"},
    {"part": "1999"},
    {"ratio": "1.5"},
    {"verdict": "not_decidable", "code": "9"},
    {"zone": "left"},
    {"label": "none"},
    {},
)
_SPANS = (("hour", 7), ("day", 366), ("shift", 31), ("hour", 366))


def browse(browser: Chromium | Client, ended: threading.Event) -> list[Timing]:
    """Look around until the end."""
    browser.timings()  # of opening
    found: list[Timing] = []
    for turn in itertools.count():
        actions = (
            browser.scroll,
            browser.scroll,
            browser.scroll,
            lambda: browser.enlarge(7 * turn, 3),  # noqa: B023 - called in the same turn
            lambda: browser.choose(_FILTERS[turn % len(_FILTERS)]),  # noqa: B023
            lambda: browser.add_up(*_SPANS[turn % len(_SPANS)]),  # noqa: B023
        )
        for act in actions:
            act()
            if ended.wait(_PAUSE_S):
                return found + browser.timings()
        found += browser.timings()
    raise AssertionError


def scrape(port: int, ended: threading.Event) -> None:
    """Figures, once a second."""
    while not ended.wait(1):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        connection.close()


@contextmanager
def set_up(folder: Path, port: int) -> Iterator[str]:
    """A set-up with a camera that shows parts; gives its token."""
    (folder / "parts").mkdir(parents=True)
    for number, part in enumerate(parts(5, seed=4)):
        cv2.imwrite(str(folder / "parts" / f"{number}.png"), part.image)
    order = new_order(folder / "station.yaml", "127.0.0.1", port, str(folder / "parts"))
    served, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=set_up_station, args=(order, stop, lambda _: served.set()))
    thread.start()
    try:
        assert served.wait(_WITHIN_S)
        yield order.token
    finally:
        stop.set()
        thread.join()


def answers(port: int) -> bool:
    """Whether the page is there."""
    with suppress(ConnectionError):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/icon.svg")
        return connection.getresponse().status == 200
    return False


def main() -> None:
    """Until the input ends."""
    lower_priority(19)
    kind, page, metrics, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    ended = threading.Event()
    with ExitStack() as stack:
        browsers = [_KINDS[kind](page) for _ in range(_BROWSERS)]
        for browser in browsers:
            stack.enter_context(browser)
        with set_up(folder, page) as token:
            for browser in browsers:
                browser.open_set_up(token)
        print("set-up is over", flush=True)  # noqa: T201
        until(lambda: answers(page), _WITHIN_S)
        for browser in browsers:
            browser.open_pages()
        print("open", flush=True)  # noqa: T201
        with ThreadPoolExecutor(_BROWSERS + 1) as pool:
            browsing = [pool.submit(browse, browser, ended) for browser in browsers]
            pool.submit(scrape, metrics, ended)
            sys.stdin.read()
            ended.set()
        took_ms = defaultdict(list)
        for kind_of_request, ms in (each for future in browsing for each in future.result()):
            took_ms[kind_of_request].append(ms)
        print(json.dumps(took_ms), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
