"""The set-up page with the longest content that a station can have, on screens from a phone to a wall."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from agent.setup.routes import SetupRoutes
from agent.web.picture import as_jpeg
from agent.web.requests import server_of
from agent.web.server_socket import listening
from agent.web.token_auth import TokenAuth
from tests.support.chromium import Tab, require_chromium
from tests.support.layout import PROBLEMS, WIDTHS, WITHOUT_NAME
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.setup.steps import Steps

pytestmark = [pytest.mark.slow, pytest.mark.waits]

TOKEN = "0123456789ab"  # noqa: S105 - of this test alone
JPEG = as_jpeg(np.full((480, 640, 3), 90, np.uint8), 640)
LONG = "unlike the others, and much like 20261130-134205-380.png of the supplier that changed its lacquer last week"
NAMES = [f"20261130-1342{number:02}-380.png" for number in range(40)]
ZONES = [f"zone-{number:02}-inner-seal-of-the-cover" for number in range(12)]


def worst_zone(name: str) -> dict[str, Any]:
    scored = [{"name": each, "score": 98765.4, "ratio": 12345.6} for each in NAMES[:6]]
    return {
        "zone": name,
        "images": 12345,
        "threshold": 12345.678,
        "falseRejectRate": 0.001,
        "findings": [{"what": LONG * 2, "images": NAMES}],
        "suspicious": scored[:3],
        "highest": scored,
        "without": {"threshold": 12345.6, "found": 0.37},
        "forecast": {
            "smallest": f"none of these synthetic defects is found 9 times in 10; of the largest, {LONG}, 3 of 16 are",
            "warning": LONG,
            "found": 0.38,
            "sizes": [{"side": "1234 pixels (123.45 mm)", "found": 0.5}] * 5,
            "curve": [{"rejected": "1 good part in 1000", "found": 0.5}] * 7,
        },
    }


def worst_state() -> dict[str, Any]:
    trial_parts = [
        {"id": f"{number:032}", "at": 0, "verdict": verdict, "ratio": 12345.6, "zone": ZONES[number], "reason": LONG}
        for number, verdict in enumerate(["ok", "defect", "not decidable"] * 4)
    ]
    levels = dict.fromkeys(["enterprise", "site", "area", "line", "cell", "name"], "a-long-level-of-the-topic")
    return {
        "at": 0,
        "draft": {
            "camera": {"width": 1920, "height": 1080, "exposure": "auto", "gain": 12.5},
            "zones": [
                {"name": name, "region": [10, 10, 300, 300], "ignored": [[20, 20, 50, 50]] * 3} for name in ZONES
            ],
            "trigger": {"source": "motion", "settled_ms": 200},
            "false_reject_rate": 0.001,
            "station": levels,
            "mqtt": {"host": "broker-of-line-2.plant.example", "port": 8883, "tls": {"enabled": True}},
        },
        "topics": "/".join([*levels.values(), "vision"]),
        "camera": {
            "found": ["/dev/video0"],
            "refused": [f"exposure: asked for 12345, got 6789; {LONG}"] * 2,
            "source": "rtsp://camera-of-line-2.plant.example:8554/stream/with/a/very/long/path?profile=1",
            "isLive": True,
            "problem": LONG,
            "size": [640, 480],
            "framesPerS": 123.4,
            "figures": {"focus": 0.31, "mean": 250.1, "white": 0.41, "black": 0.33, "advice": [LONG] * 3},
            "parts": 123,
            "partsOverS": 10.0,
            "hasEmptyPlace": False,
            "isCollecting": True,
            "isTesting": True,
            "trialProblem": LONG,
        },
        "tray": [
            {"name": name, "isOut": place % 7 == 0, "mark": LONG if place % 5 == 0 else ""}
            for place, name in enumerate(NAMES)
        ],
        "hasArchive": True,
        "leastImages": 10,
        "teaching": {
            "progress": {"zone": ZONES[0], "step": "validating", "share": 0.4, "leftS": 1234.0},
            "error": LONG,
            "number": 3,
            "zones": [worst_zone(name) for name in ZONES[:3]],
        },
        "trial": {"counts": {"ok": 123456, "defect": 12345, "not decidable": 1234}, "parts": trial_parts},
        "hasTested": True,
        "broker": {"isGood": False, "text": LONG},
        "config": f"/srv/{LONG.replace(' ', '-')}/station.yaml",
    }


@contextmanager
def served() -> Iterator[int]:
    """The page on a free port."""
    numbers = iter(range(1, 10**6))
    steps = SimpleNamespace(
        state=worst_state,
        bench=SimpleNamespace(
            picture_after=lambda *_: (next(numbers), JPEG), trial=SimpleNamespace(jpeg=lambda _: JPEG)
        ),
        tray=SimpleNamespace(jpeg=lambda *_: JPEG),
    )
    server = server_of(SetupRoutes(cast("Steps", steps), TokenAuth(TOKEN)).app([]))
    with listening("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            until(lambda: server.started)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)


def test_nothing_overlaps_or_leaves_the_window_in_any_step(tmp_path: Path) -> None:
    require_chromium()
    with served() as port, Tab() as tab:
        tab.look(1280, 900)
        tab._call("Page.navigate", session=True, url=f"http://127.0.0.1:{port}/#{TOKEN}")
        tab.until("document.readyState === 'complete' && document.querySelectorAll('#steps button').length === 7")
        tab.ask("document.querySelector('details').open = true")
        for step in ("camera", "region", "part", "collect", "teach", "test", "go"):
            tab.ask(f"document.getElementById('go-{step}').click()")
            for width, height in WIDTHS.items():
                tab.look(width, height)
                tab.photograph(tmp_path / f"{step}-{width}.png")
                assert tab.ask(PROBLEMS) == [], (step, width)
            assert tab.ask(WITHOUT_NAME) == [], step
        assert tab.complaints == []
