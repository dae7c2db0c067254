"""Headless Chromium, driven through a pipe: a page that lives needs more than one look at it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

PROGRAM = shutil.which("chromium")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_PATIENCE_S = 60.0


def require_chromium() -> None:
    """Skip the test where there is no browser; in CI that is a failure."""
    if PROGRAM is None:
        reason = "chromium is not installed: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def text(identity: str) -> str:
    """JavaScript for the text of an element."""
    return f"document.getElementById('{identity}').textContent"


class Tab:
    """Pages in a browser of its own, from enter to exit; one is used at a time.

    Attributes:
        complaints: What the page wrote on its console, and requests that were refused.
    """

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._number = 0
        self._rest = b""
        self._windows: dict[str, str] = {}
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        profile = self._resources.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        for descriptor in (self._in, self._out):
            self._resources.callback(os.close, descriptor)
        # The pipe must have the numbers 3 and 4, which may be anybody's here.
        command = [PROGRAM or "chromium", *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        process = subprocess.Popen(  # noqa: S603 - our own page
            ["/bin/bash", "-c", shell, "bash", *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in (theirs_in, theirs_out):
            os.close(descriptor)
        self._resources.callback(process.wait)
        self._resources.callback(process.kill)
        self.use("first")
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def use(self, window: str) -> None:
        """Show pages in the window of this name from now on; it is opened when it is first used."""
        if window not in self._windows:
            target = self._call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
            session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self._windows[window] = self._session = session
            for domain in ("Page", "Runtime", "Log"):
                self._call(f"{domain}.enable", session=True)
        self._session = self._windows[window]

    def prepare(self, script: str) -> None:
        """JavaScript that runs first in each page that this window opens."""
        self._call("Page.addScriptToEvaluateOnNewDocument", session=True, source=script)

    def open(self, url: str) -> None:
        self._call("Page.navigate", session=True, url=url)
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            session=True,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", session=True, features=scheme)

    def ask(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page has
        """The value of JavaScript in the page; promises are waited for."""
        answer = self._call(
            "Runtime.evaluate", session=True, expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, timeout_s: float = _PATIENCE_S) -> Any:  # noqa: ANN401 - as above
        """Its value as soon as that is something."""
        deadline_s = time.monotonic() + timeout_s
        while not (value := self.ask(expression)):
            assert time.monotonic() < deadline_s, f"waited in vain for {expression}; {self.complaints}"
            time.sleep(0.05)
        return value

    def press(self, key: str) -> None:
        """Press a key, as a person does, where the focus is."""
        for event in ("rawKeyDown", "keyUp"):
            code = {"ArrowLeft": 37, "ArrowRight": 39}[key]
            self._call("Input.dispatchKeyEvent", session=True, type=event, key=key, windowsVirtualKeyCode=code)

    def photograph(self, path: Path, *, whole: bool = False) -> None:
        taken = self._call("Page.captureScreenshot", session=True, format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _call(self, method: str, *, session: bool = False, **params: object) -> Any:  # noqa: ANN401 - any JSON
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (heard := self._hear()).get("id") != self._number:
            self._note(heard)
        assert "error" not in heard, heard["error"]
        return heard["result"]

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has gone"
            self._rest += piece
        message, self._rest = self._rest.split(b"\0", 1)
        heard: dict[str, Any] = json.loads(message)
        return heard

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str([each.get("value") for each in params["args"]]))
