"""The live page's process for tests, without an agent."""

from __future__ import annotations

import http.client
import json
import os
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from agent.backoff import BackoffLimits
from agent.messages.records import Evaluation, Result, new_id, to_json
from agent.web.ipc import PageOrder
from agent.web.page_feed import PageFeed
from agent.web.server_socket import listening
from calibration.imaging.preprocess import Region
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.inspection.score import PartInspection

TOKEN = "press-line-2"  # noqa: S105 - of this test alone
QUICK = BackoffLimits(first_retry_s=0.05, longest_retry_s=0.1)
HEALTH = {"fps": 8.0, "dropped": {"superseded": 3}, "results": 5}


class Client:
    """The browser's side of a page."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, {"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        connection.close()
        return response

    def post(self, path: str, content: object, token: str | None = TOKEN) -> tuple[int, dict[str, Any]]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        response = self.ask(path, "POST", json.dumps(content).encode(), headers)
        return response.status, json.loads(response.read() or b"{}")


class Served(Client):
    """A page of a station, and the browser's side of it."""

    def __init__(self, page: PageFeed, port: int) -> None:
        super().__init__(port)
        self.page = page

    def picture(self, after: str = "") -> tuple[dict[str, Any], bytes]:
        """The header of the picture, and the whole answer."""
        response = self.ask(f"/picture?after={after}")
        assert response.status == 200
        content = response.read()
        return json.loads(content[4 : 4 + int.from_bytes(content[:4], "big")]), content

    @contextmanager
    def watching(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Updates, as a browser gets them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", "/events")
        response = connection.getresponse()
        data = (line.removeprefix(b"data: ") for line in response if line.startswith(b"data: "))
        next(data)  # hello
        try:
            yield (json.loads(each) for each in data)
        finally:
            response.close()
            connection.close()

    def put(self, result: Result) -> None:
        self.page.put("result", result.result_id, "result", to_json(result.payload()), result.created_at_ms)


@contextmanager
def serving(folder: Path, *, token: str | None = TOKEN, names: tuple[str, ...] = (), silent_after_s: float = 30) -> Any:  # noqa: ANN401 - a context manager of Served
    """A page on a free port."""
    order = PageOrder(
        names=names,
        token=token,
        state_dir=str(folder),
        has_archive=True,
        shifts={"early": 360, "late": 840, "night": 1320},
        station="acme/vision/station1",
        version="1.2.3",
        log_level="info",
        log_format="text",
    )
    with listening("127.0.0.1", 0) as listener:
        page = PageFeed(order, listener, pace=QUICK, silent_after_s=silent_after_s)
        page.use_state(lambda: {"state": "running", "health": HEALTH})
        with page:
            until(lambda: page.pid is not None)
            yield Served(page, listener.getsockname()[1])


def result(number: int, score: float = 1.0, threshold: float = 10.0) -> Result:
    evaluation = Evaluation.NOT_OK if score > threshold else Evaluation.OK
    return Result(
        seq=number,
        part_id=f"P{number}",
        created_at_ms=1_000_000 + 1000 * number,
        evaluation=evaluation,
        score=score,
        threshold=threshold,
    )


def seen(of: Result | None = None, *, size: tuple[int, int] = (48, 64), captured_ns: int = 0) -> PartInspection:
    """A frame with a gradient, and a map that is hot in one corner."""
    rows, columns = size
    image = np.empty((rows, columns, 3), np.uint8)
    image[:] = np.linspace(0, 255, columns).astype(np.uint8)[None, :, None]
    score_map = np.zeros((4, 4), np.float32)
    score_map[0, 0] = 100.0
    evaluation = Evaluation.OK if of is None else of.evaluation
    return cast(
        "PartInspection",
        SimpleNamespace(
            result_id=new_id() if of is None else of.result_id,
            region=None,
            frame=SimpleNamespace(image=image, captured_at_ms=1_000_000, captured_ns=captured_ns),
            recipe=SimpleNamespace(
                preprocess=SimpleNamespace(region=Region(8, 4, 32, 32)),
                grid=(4, 4),
                rules=SimpleNamespace(threshold=10.0),
            ),
            inference=SimpleNamespace(score=100.0, map=score_map),
            decision=SimpleNamespace(verdict=SimpleNamespace(evaluation=evaluation)),
        ),
    )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
