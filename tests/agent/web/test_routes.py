"""What the page's process answers to browsers, and to those that are none."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.web import routes
from tests.support.pages import TOKEN, Served, result, seen, serving
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("state"), names=("line-box",)) as page:
        yield page


def raw(port: int, request: bytes) -> bytes:
    """What comes back for bytes that no library of ours would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(65536)


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/events", "/nothing", "/archive"])
def test_every_answer_forbids_content_from_other_sites(served: Served, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.request("GET", path)
    headers = connection.getresponse().headers
    connection.close()
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_the_page_loads_nothing_from_other_sites(served: Served) -> None:
    files = Path(routes.__file__).with_name("static").iterdir()
    for name in ("", *(file.name for file in files)):
        text = served.ask(f"/{name}").read().decode()
        links = [line for line in text.splitlines() if "//" in line.replace("// ", "")]
        assert [line for line in links if "http://www.w3.org/" not in line] == []
        assert "style=" not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8480", "127.0.0.1.evil.example", "", "[evil", "localhost."]
)
def test_a_request_under_another_host_name_is_refused(served: Served, host: str) -> None:
    assert served.ask("/", headers={"Host": host}).status == 421
    assert served.ask("/events", headers={"Host": host}).status == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "localhost:8480", "LOCALHOST", "[::1]:80", "10.0.0.7", "line-box:8480"]
)
def test_requests_under_addresses_and_own_names_are_answered(served: Served, host: str) -> None:
    assert served.ask("/", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../site.py",
        "/..%2fsite.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/static/index.html",
        "/archive/../../../etc/passwd/small.jpg",
        "/archive/..%2f..%2findex.sqlite/small.jpg",
        "/archive/0123/small.jpg",
        f"/archive/{'a' * 32}/original.jpg",
        f"/archive/{'a' * 32}/small.jpg",
    ],
)
def test_no_other_file_of_the_disk_is_served(served: Served, path: str) -> None:
    assert raw(served.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).startswith(b"HTTP/1.1 404")


def test_a_request_that_is_too_large_is_refused(served: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert served.ask("/command/pause", "POST", b"x" * 5000, headers).status == 413
    chunked = b"POST /command/pause HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(served.port, chunked).startswith(b"HTTP/1.1 413")
    strange = b"POST /command/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e9\r\n\r\n"
    assert raw(served.port, strange).startswith(b"HTTP/1.1 4")
    long_header = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 70_000
    assert raw(served.port, long_header).startswith(b"HTTP/1.1 4")
    assert served.ask("/").status == 200


def test_changes_need_the_token(served: Served) -> None:
    for path in (
        "/command/threshold",
        "/command/pause",
        "/command/resume",
        "/unlock",
        f"/archive/{'a' * 32}",
        "/recalibration",
    ):
        assert served.post(path, {}, token=None) == (401, {"error": "this needs the token"})
        assert path == "/recalibration" or served.ask(path).status in {404, 405}
    # Who has it gets further: here is no agent, and no picture.
    status, answer = served.post("/command/pause", {"reason": None})
    assert (status, "no agent is running" in answer["error"]) == (503, True)
    status, answer = served.post(f"/archive/{'a' * 32}", {"label": "good"})
    assert (status, "no agent is running" in answer["error"]) == (503, True)
    for path in ("/command/rollback", "/recalibration"):
        status, answer = served.post(path, {})
        assert (status, "no agent is running" in answer["error"]) == (503, True)
    assert served.post("/command/trigger", {})[0] == 404
    assert served.post("/command/pause", [1])[0] == 400
    assert served.post("/unlock", {})[0] == 204


def test_another_page_cannot_command_even_with_the_token(served: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}
    assert served.ask("/unlock", "POST", b"{}", headers).status == 403
    headers["Origin"] = f"http://127.0.0.1:{served.port}"
    assert served.ask("/unlock", "POST", b"{}", headers).status == 204
    assert served.ask("/unlock", "OPTIONS", None, {"Origin": "http://evil.example"}).status == 403


@pytest.mark.slow
def test_a_page_without_a_token_is_read_only(served: Served, tmp_path: Path) -> None:
    del served
    with serving(tmp_path, token=None) as page:
        for given in (None, "", "None"):
            status, answer = page.post("/command/pause", {}, token=given)
            assert (status, "read-only" in answer["error"]) == (403, True)


def test_results_state_and_picture_reach_a_viewer(served: Served) -> None:
    bad = result(7, score=50.0)
    served.put(bad)
    served.page.show(seen(bad))
    about, content = served.picture()
    assert (about["id"], about["verdict"], about["part"]) == (bad.result_id, "NOT OK", "P7")
    assert about["region"] == [8, 4, 32, 32]
    start = len(content) - about["jpegBytes"] - about["heatBytes"]
    image = cv2.imdecode(np.frombuffer(content[start : start + about["jpegBytes"]], np.uint8), cv2.IMREAD_COLOR)
    heat = cv2.imdecode(np.frombuffer(content[start + about["jpegBytes"] :], np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert heat is not None
    assert image.shape == (48, 64, 3)
    assert image[:, -8:].mean() - image[:, :8].mean() > 200
    assert heat.shape == (32, 32, 4)
    assert heat[2, 2, 3] == 255
    assert heat[-8:, -8:, 3].max() == 0
    with served.watching() as updates:
        update = next(each for each in updates if each["state"])
        assert update["state"]["health"]["dropped"] == {"superseded": 3}
        assert update["shown"]["verdict"] == "NOT OK"
        assert update["silentMs"] < 60_000


def test_a_large_picture_is_reduced_and_a_second_viewer_costs_nothing(served: Served) -> None:
    served.page.show(seen())
    before_it = served.picture()[0]["id"]
    first = seen(size=(1500, 2000))
    served.page.show(first)
    until(lambda: served.picture(after=before_it)[0]["id"] == first.result_id)
    with served.watching() as updates:
        before = next(updates)["encoded"]
        about, content = served.picture()
        image = cv2.imdecode(
            np.frombuffer(content[-about["jpegBytes"] - about["heatBytes"] :], np.uint8), cv2.IMREAD_COLOR
        )
        assert image is not None
        assert image.shape == (960, 1280, 3)
        assert (about["rows"], about["columns"]) == (1500, 2000)
        assert [served.picture()[1] for _ in range(5)] == [content] * 5
        with served.watching() as others:
            assert next(others)["viewers"] == 2
        second = seen()
        served.page.show(second)
        both = [served.picture(after=first.result_id)[0]["id"] for _ in range(2)]
        assert both == [second.result_id] * 2
        assert next(each for each in updates if each["encoded"] > before)["encoded"] == before + 1


def test_no_picture_is_encoded_while_no_viewer_watches(served: Served) -> None:
    with served.watching() as updates:
        before = next(updates)["encoded"]
    for _ in range(20):
        served.page.show(seen())
    served.put(result(99))
    with served.watching() as updates:
        update = next(each for each in updates if each["last"] and each["last"][0]["seq"] == 99)
    assert update["encoded"] == before


def test_a_body_that_is_not_a_json_object_is_refused(served: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for body in (b"", b"{", b"\xff", b"[" * 4000):
        response = served.ask("/command/pause", "POST", body, headers)
        assert response.status == 400
        assert json.loads(response.read())["error"]
