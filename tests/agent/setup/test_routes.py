"""The page of a set-up answers only who has the token, serves nothing else of the disk, and takes no damage."""

from __future__ import annotations

import json
import logging
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import BrokerUnreachableError
from agent.setup import routes as routes_module
from agent.setup import steps as steps_module
from agent.setup import teaching as teaching_module
from agent.setup.step_values import STEPS
from agent.setup.steps import Steps
from agent.web.token_auth import TokenAuth
from tests.support import pretend_teaching
from tests.support.pages import TOKEN, Client
from tests.support.set_up import belt, configure, everything_in, fill_tray, order_for, page_of, put_taught
from tests.support.stations import broken_parts, good_parts, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
SECRETS = ("s3cret-of-the-camera", "s3cret-of-the-broker")
READ = ("/setup", "/setup/picture", "/setup/tray/0000.png/small", "/setup/trial/abc")
VALID: dict[str, dict[str, Any]] = {
    "camera": {"source": "/nowhere/else.avi"},
    "zones": {"zones": [{"name": None, "region": [0, 0, 40, 40], "ignored": []}]},
    "part": {"source": "motion", "settled_ms": 300},
    "empty_place": {},
    "take": {},
    "collect": {"on": True},
    "from_archive": {},
    "throw_out": {"name": "000.png", "out": True},
    "teach": {"falseRejectRate": 0.05},
    "test": {"on": True},
    "wrong": {"id": "a" * 32},
    "broker": {"mqtt": {"host": "127.0.0.1", "port": 1}, "station": {"line": "7"}},
    "go": {},
}


class World:
    """Steps and their page."""

    def __init__(self, home: Path, steps: Steps, client: Client) -> None:
        self.home = home
        self.steps = steps
        self.client = client

    def seen(self) -> tuple[object, ...]:
        """All that a step may change."""
        files = {name: content for name, content in everything_in(self.home).items() if "belt" not in name}
        bench = self.steps.bench
        return files, self.steps.drafts.values, bench.is_collecting, bench.trial, self.steps.teaching.is_under_way

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        response = self.client.ask(path, headers={**AUTHORIZED, **headers})
        return response.status, response.read()

    def raw(self, request: bytes) -> bytes:
        """The first line that comes back for bytes that no library of ours would send."""
        with socket.create_connection(("127.0.0.1", self.client.port), timeout=20) as connection:
            connection.sendall(request)
            return connection.recv(65536).partition(b"\r\n")[0]

    def reason(self, step: str, values: object, status: int = 409) -> str:
        """Why a step is refused, in one line; nothing has changed."""
        before = self.seen()
        found, answer = self.client.post(f"/setup/{step}", values)
        assert (found, list(answer)) == (status, ["error"]), answer
        assert answer["error"].strip()
        assert answer["error"].isprintable()
        assert self.seen() == before
        return str(answer["error"])


def refuse_broker(*_: object) -> str:
    raise BrokerUnreachableError(what="no broker", remedy="none here")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Five images in the tray, and a camera that stands still; nothing can be taught or tested."""
    home = tmp_path_factory.mktemp("station")
    fill_tray(home, good_parts(5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps_module, "try_access", refuse_broker)
        patch.setattr(routes_module, "_PICTURE_WITHIN_S", 0.05)
        steps = Steps(order_for(home, belt(home)), lambda: None)
        with steps, page_of(steps) as client:
            until(lambda: steps.state()["camera"]["isLive"])
            yield World(home, steps, client)


@pytest.fixture
def tokens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong tokens of other tests are forgotten."""
    del world
    monkeypatch.setattr(TokenAuth, "_wrong_ones_left", lambda *_: 5.0)


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer ", f"Bearer {TOKEN}x", f"bearer {TOKEN}", f"Basic {TOKEN}", TOKEN]
)
@pytest.mark.parametrize("step", [*VALID, "nothing"])
def test_no_step_is_taken_without_the_token(world: World, step: str, authorization: str | None) -> None:
    before = world.seen()
    headers = {} if authorization is None else {"Authorization": authorization}
    response = world.client.ask(f"/setup/{step}", "POST", json.dumps(VALID.get(step, {})).encode(), headers)
    assert response.status == 401
    assert json.loads(response.read())["error"] in {"this needs the token", "the token is wrong"}
    assert world.seen() == before


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize("path", READ)
def test_nothing_is_read_without_the_token(world: World, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong-token"}):
        for method in ("GET", "HEAD"):
            assert world.client.ask(path, method, headers=headers).status == 401
    assert world.client.ask(f"{path}?token={TOKEN}").status == 401


def test_guessing_tokens_is_slowed_down_also_for_who_has_it(tmp_path: Path) -> None:
    steps = Steps(order_for(tmp_path), lambda: None)
    with steps, page_of(steps) as client:
        statuses = [client.post("/setup/take", {}, token=f"wrong-{number}")[0] for number in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        assert client.post("/setup/take", {})[0] == 429


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8480", "127.0.0.1.evil.example", ""])
def test_a_request_under_another_host_name_is_refused(world: World, host: str) -> None:
    before = world.seen()
    for path, method in (("/", "GET"), ("/setup", "GET"), ("/setup/collect", "POST")):
        headers = {**AUTHORIZED, "Host": host}
        assert world.client.ask(path, method, b'{"on": true}' if method == "POST" else None, headers).status == 421
    assert world.seen() == before
    assert world.get("/setup", Host="line-box:8480")[0] == 200


def test_another_page_cannot_take_a_step_even_with_the_token(world: World) -> None:
    before = world.seen()
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{world.client.port + 1}"):
        headers = {**AUTHORIZED, "Origin": origin}
        assert world.client.ask("/setup/collect", "POST", b'{"on": true}', headers).status == 403
    assert world.seen() == before
    headers = {**AUTHORIZED, "Origin": f"http://127.0.0.1:{world.client.port}"}
    assert world.client.ask("/setup/take", "POST", b"{}", headers).status == 200


def test_a_body_that_is_too_large_or_of_unknown_length_is_refused(world: World) -> None:
    before = world.seen()
    large = json.dumps({"zones": [{"region": [1, 2, 3, 4]}], "x": "y" * 5000}).encode()
    assert world.client.ask("/setup/zones", "POST", large, AUTHORIZED).status == 413
    head = f"POST /setup/collect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    chunked = f'{head}Transfer-Encoding: chunked\r\n\r\nc\r\n{{"on": true}}\r\n0\r\n\r\n'
    assert world.raw(chunked.encode()).startswith(b"HTTP/1.1 413")
    for length in ("1e9", "-1", "99999999999", "12, 13"):
        answer = world.raw(f'{head}Content-Length: {length}\r\n\r\n{{"on": true}}'.encode())
        assert answer.startswith(b"HTTP/1.1 4"), length
    assert world.seen() == before


@pytest.mark.parametrize(
    "path",
    [
        "/../station.yaml",
        "/..%2fstation.yaml",
        "/%2e%2e/station.yaml",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/static/setup.html",
        "/setup.html%00.css",
        "/SETUP.HTML",
        "/setup.py",
        "/%c3%a9.js",
        "/%ff",
        "/setup/tray/../../draft.yaml/small",
        "/setup/tray/..%2fdraft.yaml/small",
        "/setup/tray/..%2f..%2fstation.yaml/large",
        "/setup/tray/%2e%2e/small",
        "/setup/tray/%2fetc%2fpasswd/small",
        "/setup/tray//etc/passwd/small",
        "/setup/tray/000.png%00/small",
        "/setup/tray/000.png/original",
        "/setup/tray/000.png/..%2fsmall",
        "/setup/tray/000.png",
        "/setup/tray/%ff%fe/small",
        "/setup/tray/%E2%80%AE.png/small",
        f"/setup/tray/{'a' * 3000}/small",
        "/setup/trial/..%2f..%2fdraft.yaml",
        "/setup/trial/%00",
        "/setup/trial/",
        "/setup/draft.yaml",
    ],
)
def test_no_other_file_of_the_disk_is_served(world: World, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    status = world.raw(request.encode())
    assert status.split()[1] in {b"404", b"405", b"409", b"307"}, status


def test_images_of_the_tray_are_served(world: World) -> None:
    for size in ("small", "large"):
        status, content = world.get(f"/setup/tray/000.png/{size}")
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert status == 200
        assert image is not None
        assert image.shape == good_parts(1)[0].shape


def test_a_picture_comes_after_the_known_one_or_nothing_does(world: World) -> None:
    response = world.client.ask("/setup/picture", headers=AUTHORIZED)
    assert response.status == 200
    assert response.read().startswith(b"\xff\xd8")
    number = int(response.headers["X-Number"])
    for after in ("", "x", "-1", "99999999999", "1e3", "%00", "%C2%B2", "%ff"):
        assert world.get(f"/setup/picture?after={after}")[0] == 200
    until(lambda: world.get(f"/setup/picture?after={number}")[0] == 200)


def test_the_pages_own_files_need_no_token_and_load_nothing_from_other_sites(world: World) -> None:
    names = [path.name for path in routes_module._OWN.iterdir()]
    assert {"setup.html", "setup.js", "setup.css"} <= set(names)
    for name in ("", *names):
        response = world.client.ask(f"/{name}")
        text = response.read().decode()
        assert response.status == 200
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Cache-Control"] == "no-store"
        links = [line for line in text.splitlines() if "//" in line.replace("// ", "")]
        assert [line for line in links if "http://www.w3.org/" not in line and "://…" not in line] == []
        assert "style=" not in text


def test_an_unknown_step_is_refused_with_those_that_there_are(world: World) -> None:
    assert set(VALID) == set(STEPS)
    for step in ("nothing", "state", "do", "__init__", "drafts", "_camera", "camera%20", "CAMERA"):
        assert world.reason(step, {}, 404).startswith("there are: camera, zones, part")


def test_a_body_that_is_not_a_json_object_is_refused(world: World) -> None:
    before = world.seen()
    for step in STEPS:
        for body in (b"", b"{", b"\xff", b"[" * 4000, b'{"a": ' * 600, b"[1]", b"3", b"null", b'"x"', b"9" * 4000):
            response = world.client.ask(f"/setup/{step}", "POST", body, AUTHORIZED)
            assert response.status == 400, body[:20]
            assert json.loads(response.read())["error"].isprintable()
    assert world.seen() == before


@pytest.mark.parametrize(
    ("step", "values"),
    [
        ("zones", {}),
        ("zones", {"zones": None}),
        ("zones", {"zones": {"region": [1, 2, 3, 4]}}),
        ("zones", {"zones": [{"region": ["1", "2", "3", "4"]}]}),
        ("zones", {"zones": [{"name": "../up", "region": None}, {"name": "b"}]}),
        ("zones", {"zones": [{}] * 13}),
        ("zones", {"zones": [{"ignored": [[1, 2, 3, 4]] * 21}]}),
        ("camera", {}),
        ("camera", {"source": None}),
        ("camera", {"source": ["/dev/video0"]}),
        ("camera", {"source": True}),
        ("camera", {"source": "-1"}),
        ("camera", {"source": "0", "\ud800": 1}),
        ("camera", {"source": "0", "a\nb\x07": 1}),
        ("camera", {"source": "a\x00b"}),
        ("camera", {"source": "0", "gain": "much"}),
        ("camera", {"source": "0", "gain": float("nan")}),
        ("camera", {"source": "0", "gain": float("inf")}),
        ("camera", {"source": "0", "width": 10**30, "height": 4}),
        ("part", {"source": 3}),
        ("part", {"source": "motion", "settled_ms": "300"}),
        ("part", {"source": "motion", "every": 2}),
        ("empty_place", {"forget": "yes"}),
        ("empty_place", {"name": 7}),
        ("empty_place", {"name": "../belt/0000.png"}),
        ("take", {"x": 1}),
        ("collect", {}),
        ("collect", {"on": "yes"}),
        ("collect", {"on": 1}),
        ("throw_out", {"name": "000.png"}),
        ("throw_out", {"name": ["000.png"], "out": True}),
        ("throw_out", {"name": "\ud800", "out": True}),
        ("throw_out", {"name": "a\nb", "out": True}),
        ("teach", {"cancel": 1}),
        ("teach", {"falseRejectRate": "x"}),
        ("test", {"on": None}),
        ("wrong", {"id": 7}),
        ("wrong", {}),
        ("broker", {"mqtt": 3}),
        ("broker", {"mqtt": "localhost"}),
        ("broker", {"station": []}),
        ("broker", {"mqtt": {"tls": True}}),
        ("broker", {"mqtt": {"host": {"a": 1}}}),
        ("go", {"now": True}),
    ],
)
def test_values_of_another_kind_are_refused_in_words(world: World, step: str, values: dict[str, Any]) -> None:
    assert "should not happen" not in world.reason(step, values)


NAMES = st.sampled_from(
    ["on", "out", "name", "zones", "region", "source", "mqtt", "station", "tls", "host", "\ud800", ""]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=6)
    | st.sampled_from(["000.png", "..", "../../etc/passwd", "/etc/passwd", "\0", "a\nb", "1e3", "null"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A step with one of its values, or something in it, replaced."""
    step = draw(st.sampled_from(sorted(STEPS)))
    values = json.loads(json.dumps(VALID[step]))
    names = sorted(field.alias or name for name, field in STEPS[step].model_fields.items())
    name = draw(st.sampled_from(names) | NAMES if names else NAMES)
    if isinstance(values.get(name), dict) and draw(st.booleans()):
        values[name][draw(st.sampled_from(["host", "port", "username", "password", "tls", "line"]) | NAMES)] = draw(
            VALUES
        )
    else:
        values[name] = draw(VALUES)
    return step, values


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests())
def test_no_request_fails_in_another_way_than_in_words_and_changes_nothing_then(
    world: World, asked: tuple[str, dict[str, Any]]
) -> None:
    step, values = asked
    before = world.seen()
    status, answer = world.client.post(f"/setup/{step}", values)
    if status == 200:  # it can be used
        world.client.post("/setup/collect", {"on": False})
        return
    assert status in {400, 409}, (status, answer)
    assert answer["error"].strip()
    assert answer["error"].isprintable()
    assert world.seen() == before


def test_the_bounds_of_what_a_page_may_decide(world: World) -> None:
    zones = [{"name": f"z{number}", "region": [0, 0, 9, 9], "ignored": [[1, 1, 2, 2]] * 5} for number in range(12)]
    assert world.client.post("/setup/zones", {"zones": zones})[0] == 200
    assert "1 to 12 zones" in world.reason("zones", {"zones": [*zones, {"name": "z12"}]})
    world.steps.drafts.change(thrown_out=[f"{number}.png" for number in range(1500)])
    assert "1500" in world.reason("throw_out", {"name": "000.png", "out": True})
    world.steps.drafts.change(thrown_out=[], zones=[{}])


def test_an_error_of_our_own_is_answered_and_logged_without_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(world.steps.bench, "take_one", lambda: 1 / 0)
    caplog.set_level(logging.ERROR, logger="agent.setup.routes")
    status, answer = world.client.post("/setup/take", {})
    assert (status, "log of the set-up" in answer["error"]) == (500, True)
    assert "ZeroDivisionError" in caplog.text
    assert world.get("/setup")[0] == 200


def test_secrets_are_in_no_answer_no_log_and_no_file_that_others_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    camera, broker = SECRETS
    mqtt = {"host": "127.0.0.1", "port": 1, "username": "press", "password": broker}
    source = f"http://user:{camera}@127.0.0.1:1/stream"
    monkeypatch.setattr(routes_module, "_PICTURE_WITHIN_S", 0.05)
    steps = Steps(order_for(tmp_path), lambda: None)
    answers = []
    with steps, page_of(steps) as client:
        for step, values in (
            ("camera", {"source": source, "width": "x"}),
            ("camera", {"source": source}),
            ("broker", {"mqtt": {**mqtt, "port": -1}, "station": {}}),
            ("broker", {"mqtt": mqtt, "station": {}}),
            ("part", {"source": "every_frame"}),
            ("test", {"on": True}),
            ("go", {}),
        ):
            answers.append(client.post(f"/setup/{step}", values))
        until(lambda: steps.state()["camera"]["problem"])
        answers.append((200, json.loads(client.ask("/setup", headers=AUTHORIZED).read())))
    assert [status for status, _ in answers] == [409, 200, 409, 200, 200, 409, 409, 200]
    text = json.dumps(answers)
    assert "***@127.0.0.1:1/stream" in text
    for secret in SECRETS:
        assert secret not in text
        assert secret not in caplog.text
    for path in tmp_path.rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in SECRETS):
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.slow
def test_two_browsers_at_once_do_no_harm(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = replace(teaching_module._PROGRAM, module=pretend_teaching.__name__)
    monkeypatch.setattr(teaching_module, "_PROGRAM", program)
    monkeypatch.setattr(steps_module, "try_access", refuse_broker)
    configure(tmp_path)
    names = fill_tray(tmp_path, [*good_parts(8), *broken_parts(4)])
    (tmp_path / "setup" / "script").write_text("teach")
    camera = belt(tmp_path)
    starts: list[int] = []
    steps = Steps(order_for(tmp_path, {**camera, **put_taught(tmp_path, {"": bundle})}), lambda: starts.append(1))
    answers: dict[int, list[tuple[int, dict[str, Any]]]] = {0: [], 1: []}

    def browse(client: Client, who: int) -> None:
        choice = np.random.default_rng(who)
        for _ in range(60):
            step = str(choice.choice(sorted(set(STEPS) - {"go"})))
            values = {**VALID[step]}
            if step == "camera":
                values["source"] = camera["camera"]["source"]
            if step == "throw_out":
                values.update(name=str(choice.choice(names)), out=bool(choice.integers(2)))
            if step in {"collect", "test"}:
                values["on"] = bool(choice.integers(2))
            answers[who].append(client.post(f"/setup/{step}", values))
            answers[who].append((client.ask("/setup", headers=AUTHORIZED).status, {}))

    with steps, page_of(steps) as client:
        threads = [threading.Thread(target=browse, args=(client, who)) for who in answers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = {status for each in answers.values() for status, _ in each}
        assert {200} <= statuses <= {200, 409}
        until(lambda: not steps.teaching.is_under_way)
        # What they decided is whole, and can be read again.
        again = Steps(order_for(tmp_path), lambda: None)
        assert again.drafts.draft == steps.drafts.draft
        assert again.drafts.draft.camera is not None
        again_names = set(again.tray.names)
        assert set(names) <= again_names
        assert not list(tmp_path.rglob("*.part"))
    assert starts == []


@pytest.mark.slow
def test_two_browsers_that_teach_or_go_at_once_do_it_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = replace(teaching_module._PROGRAM, module=pretend_teaching.__name__)
    monkeypatch.setattr(teaching_module, "_PROGRAM", program)
    configure(tmp_path)
    fill_tray(tmp_path, good_parts(12))
    (tmp_path / "setup" / "script").write_text("hang")
    starts: list[int] = []
    steps = Steps(
        order_for(tmp_path, {**belt(tmp_path), **put_taught(tmp_path, {"": bundle})}), lambda: starts.append(1)
    )

    def both(step: str, values: dict[str, Any]) -> list[tuple[int, str]]:
        barrier = threading.Barrier(2)
        answers: list[tuple[int, str]] = []

        def ask() -> None:
            barrier.wait()
            status, answer = client.post(f"/setup/{step}", values)
            answers.append((status, answer.get("error", "")))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(answers)

    with steps, page_of(steps) as client:
        first, second = both("teach", {"falseRejectRate": 0.05})
        assert first[0] == 200
        assert second == (409, "it is being taught already; wait for its end, or cancel it")
        assert client.post("/setup/teach", {"cancel": True})[0] == 200
        until(lambda: not steps.teaching.is_under_way)
        first, second = both("go", {})
        assert first[0] == 200
        assert second[1].startswith("the set-up is over")
    assert starts == [1]
    assert sorted(path.name for path in tmp_path.glob("bundle*")) == ["bundle"]
