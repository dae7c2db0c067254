"""A browser on all pages of a station: Chromium, or a client that sends the same requests."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlencode

from tests.support.chromium import Tab

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

Timing: TypeAlias = "tuple[str, float]"
"""Kind of a request, and milliseconds from sending it to the end of its answer."""

KINDS = (
    ("update of the live page, after the one before", r"/events"),
    ("live picture, as soon as there is one", r"/picture\?"),
    ("more of the list", r"/archive\?.*before="),
    ("list, filtered", r"/archive\?."),
    ("list", r"/archive\??$"),
    ("thumbnail", r"/archive/\w+/small"),
    ("large picture with heat map", r"/archive/\w+/large"),
    ("statistics", r"/statistics\?"),
    ("set-up that is over", r"/setup(/picture\?.*)?$"),
)
_DAY_MS = 86_400_000
_SETUP_EVERY_S = 0.7
_THUMBNAILS_AT_ONCE = 4  # of the six connections of a browser the live page has two
_MARK_UPDATES = """
performance.setResourceTimingBufferSize(9999);
window.updates = [];
window.EventSource = class extends EventSource {
    constructor(url) {
        let before = performance.now();
        super(url);
        this.addEventListener("message", () => {
            const now = performance.now();
            updates.push(["/events", now - before]);
            before = now;
        });
    }
};
"""
_TIMINGS = """(() => {
    const answered = performance.getEntriesByType("resource").filter(each => each.responseEnd);
    performance.clearResourceTimings();
    return [...answered.map(each => [each.name, each.responseEnd - each.requestStart]), ...updates.splice(0)];
})()"""
_CHOOSE = """{
    const form = document.getElementById("filter"), wanted = %s;
    document.getElementById("caption").textContent = "";
    for (const each of form.elements) if (each.name) each.value = wanted[each.name] ?? "";
    form.dispatchEvent(new Event("input"));
}"""
_LISTED = "document.querySelectorAll('#pictures li').length"
_FOUND = "parseInt(document.getElementById('caption').textContent.replace(/[^0-9]/g, '') || 0)"
_LARGE_IS_SHOWN = "(it => it.complete && it.naturalWidth > 0)(document.getElementById('large-picture'))"
_NEXT = "document.getElementById('large').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"


def kind_of(address: str) -> str | None:
    """None for a file of the pages themselves."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, address)), None)


class Chromium:
    """Four windows of headless Chromium; each method returns when a person sees that it is done."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/"
        self._tab = Tab()

    def __enter__(self) -> Self:
        self._tab.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._tab.__exit__()

    def open_set_up(self, token: str) -> None:
        """Open the page of a set-up that runs now, and never close it."""
        self._open("setup", "")
        self._tab.ask(f"sessionStorage.setItem('token', {json.dumps(token)}); location.reload()")
        self._tab.until("document.getElementById('no-picture')?.hidden")

    def open_pages(self) -> None:
        """Open live page, gallery and statistics as well."""
        for page in ("index", "stats", "gallery"):
            self._open(page, f"{page}.html")
        self._tab.until(_LISTED)

    def scroll(self) -> None:
        """To the end of the gallery, so that more is loaded."""
        self._tab.use("gallery")
        listed = self._tab.ask(_LISTED)
        self._tab.ask("scrollTo(0, document.body.scrollHeight)")
        self._tab.until(f"{_LISTED} >= Math.min({_FOUND}, {listed + 1})")

    def enlarge(self, place: int, steps: int) -> None:
        """Look at a picture of the gallery, and at some older ones."""
        self._tab.use("gallery")
        self._tab.ask(
            f"{{ const all = document.querySelectorAll('#pictures .open'); all[{place} % all.length].click() }}"
        )
        for _ in range(steps):
            self._tab.until(_LARGE_IS_SHOWN)
            self._tab.ask(_NEXT)
        self._tab.until(_LARGE_IS_SHOWN)
        self._tab.ask("document.getElementById('close').click()")

    def choose(self, wanted: Mapping[str, str]) -> None:
        """Change the filter of the gallery."""
        self._fill("gallery", wanted)

    def add_up(self, by: str, days: int) -> None:
        """Change what the statistics show."""
        self._fill("stats", {"by": by, "days": str(days)})

    def timings(self) -> list[Timing]:
        """Those since the last call."""
        found = []
        for window in ("setup", "index", "stats", "gallery"):
            self._tab.use(window)
            found += self._tab.ask(_TIMINGS)
        return [(kind, took_ms) for address, took_ms in found if (kind := kind_of(address))]

    def _open(self, window: str, path: str) -> None:
        self._tab.use(window)
        self._tab.look(1280, 900)
        self._tab.prepare(_MARK_UPDATES)
        self._tab.open(self._url + path)

    def _fill(self, window: str, wanted: Mapping[str, str]) -> None:
        self._tab.use(window)
        self._tab.ask(_CHOOSE % json.dumps(wanted))
        self._tab.until("document.getElementById('caption').textContent")


class Client:
    """Sends the requests of `Chromium`, and shows nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._token = ""
        self._timings: list[Timing] = []
        self._wanted: dict[str, str] = {}
        self._ids: list[str] = []
        self._has_more = False
        self._pool = ThreadPoolExecutor(_THUMBNAILS_AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def open_set_up(self, token: str) -> None:
        self._token = token

    def open_pages(self) -> None:
        for follow in (self._follow_updates, self._follow_pictures, self._poll_set_up):
            threading.Thread(target=follow, daemon=True).start()
        self._list({})

    def scroll(self) -> None:
        if self._has_more:
            self._list({**self._wanted, "before": self._ids[-1]})

    def enlarge(self, place: int, steps: int) -> None:
        for number in range(steps + 1):
            self._get(f"/archive/{self._ids[(place + number) % len(self._ids)]}/large.jpg")

    def choose(self, wanted: Mapping[str, str]) -> None:
        self._wanted, self._ids = dict(wanted), []
        self._list(self._wanted)

    def add_up(self, by: str, days: int) -> None:
        self._get(f"/statistics?by={by}&since={int(1000 * time.time()) - days * _DAY_MS}")

    def timings(self) -> list[Timing]:
        found, self._timings = self._timings, []
        return found

    def _list(self, asked: Mapping[str, str]) -> None:
        content = json.loads(self._get(f"/archive?{urlencode(asked)}"))
        ids = [image["id"] for image in content["images"]]
        self._ids, self._has_more = self._ids + ids, content["hasMore"]
        list(self._pool.map(self._get, [f"/archive/{each}/small.jpg" for each in ids]))

    def _get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        began_s = time.perf_counter()
        connection.request("GET", path, headers={"Connection": "close", **(headers or {})})
        content = connection.getresponse().read()
        self._note(path, began_s)
        return content

    def _note(self, path: str, began_s: float) -> None:
        self._timings.append((kind_of(path) or path, 1000 * (time.perf_counter() - began_s)))

    def _follow_updates(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        before_s = time.perf_counter()
        connection.request("GET", "/events")
        for line in connection.getresponse():
            if line.startswith(b"data:"):
                self._note("/events", before_s)
                before_s = time.perf_counter()

    def _follow_pictures(self) -> None:
        known = ""
        while True:
            content = self._get(f"/picture?after={known}")
            if content:
                about: dict[str, Any] = json.loads(content[4 : 4 + int.from_bytes(content[:4], "big")])
                known = about["id"]

    def _poll_set_up(self) -> None:
        while True:
            for path in ("/setup", "/setup/picture?after=1"):
                self._get(path, {"Authorization": f"Bearer {self._token}"})
            time.sleep(_SETUP_EVERY_S)
