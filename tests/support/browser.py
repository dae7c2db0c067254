"""Headless Chromium, as a test sees a page through it."""

from __future__ import annotations

import base64
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = shutil.which("chromium")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
)
# What Chromium asks for on its own account, whatever page it shows.
_OF_CHROMIUM = (".google.com", ".googleapis.com", ".gvt1.com")


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page."""

    dom: str
    console: list[str]
    requests: list[str]


class Browser:
    """Headless Chromium whose every request ends in a proxy that only notes it down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._requests: list[str] = []
        requests = self._requests

        class Proxy(http.server.BaseHTTPRequestHandler):
            def note(self) -> None:
                requests.append(self.path)
                self.send_error(404)

            do_GET = do_POST = do_HEAD = do_CONNECT = note  # noqa: N815 - names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def open(self, page: Path, width: int, *options: str) -> Seen:
        self._requests.clear()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            proxy = f"--proxy-server=127.0.0.1:{self._server.server_port}"
            command = [
                PROGRAM or "chromium",
                *_FLAGS,
                proxy,
                f"--user-data-dir={profile}",
                f"--window-size={width},1600",
            ]
            ended = subprocess.run(  # noqa: S603 - our own page
                [*command, *(options or ("--dump-dom",)), page.as_uri()],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
        asked = [each for each in self._requests if not _host(each).endswith(_OF_CHROMIUM)]
        return Seen(ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line], asked)

    def measured(self, page: Path, width: int) -> dict[str, Any]:
        """Shown text, width and broken pictures of a page in a frame that is as wide as a screen."""
        frame = self.folder / f"frame{width}.html"
        frame.write_text(
            f"""<body><iframe src="{page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe><script>
            addEventListener("load", () => {{
                const inside = document.querySelector("iframe").contentDocument;
                const broken = [...inside.images].filter(image => !image.naturalWidth).length;
                const found = {{text: inside.body.innerText, width: inside.documentElement.scrollWidth,
                    pictures: inside.images.length, broken}};
                document.body.textContent = "<<" + btoa(unescape(encodeURIComponent(JSON.stringify(found)))) + ">>";
            }});</script></body>"""
        )
        encoded = re.search(r"&lt;&lt;(.*?)&gt;&gt;", self.open(frame, 1400).dom)
        assert encoded is not None
        found: dict[str, Any] = json.loads(base64.b64decode(encoded[1]))
        return found


def _host(request: str) -> str:
    return urlsplit(request if "://" in request else f"//{request}").hostname or ""
