"""The agent's end of the page: no failure of its process disturbs the inspection."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.camera import Frame
from agent.config.model import load
from agent.config.secret_files import web_token
from agent.errors import ConfigError, PageError
from agent.station.web_page import page_of
from agent.web.page_feed import _MOST_WAITING
from agent.web.server_socket import check_packages, listening
from tests.support.pages import is_alive, result, seen, serving
from tests.support.running import Running
from tests.support.stations import closed_port, good_parts, until, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.real_broker import Listener, Mosquitto

pytestmark = pytest.mark.waits


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_at_the_same_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(tmp_path) as served:
        assert served.ask("/").status == 200
        first = served.page.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: served.page.pid not in {None, first})
        kept = result(1)
        served.put(kept)
        with served.watching() as updates:  # the socket stays open meanwhile: requests are answered later
            assert next(each for each in updates if each["last"])["last"][0]["id"] == kept.result_id
        until(lambda: "the page is back" in caplog.messages)
        second = served.page.pid
    assert not is_alive(second)
    told = [record for record in caplog.records if "no page for now" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]
    assert "was killed by SIGKILL" in told[0].getMessage()


@pytest.mark.slow
def test_a_process_that_hangs_does_not_delay_the_loop_and_missed_results_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.watching() as updates:
        next(updates)
        os.kill(served.page.pid, signal.SIGSTOP)
        count = 3 * _MOST_WAITING
        for number in range(count):  # more than the socket and the queue hold; none of these waits
            served.put(result(number))
            served.page.show(seen())
        assert served.page.dropped.total() > 0
        os.kill(served.page.pid, signal.SIGCONT)
        update = next(each for each in updates if each["last"] and each["last"][0]["seq"] == count - 1)
    assert update["last"][0]["part"] == f"P{count - 1}"
    assert set(served.page.dropped) == {"web: page does not take results"}


def between(seq: int, captured_ns: int) -> Frame:
    return Frame(seq, np.full((48, 64, 3), seq, np.uint8), 1_000_000, captured_ns)


def test_a_frame_without_a_part_is_shown_when_no_part_has_come_for_a_while(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.page.show_between(between(1, 0))
        about, _ = served.picture()
        assert (about["id"], about["evaluation"], about["columns"]) == ("between-1", None, 64)
        part = result(2)
        served.put(part)
        served.page.show(seen(part, captured_ns=1_000_000_000))
        served.page.show_between(between(3, 2_900_000_000))  # the part is still to be seen
        assert served.picture(about["id"])[0]["id"] == part.result_id
        served.page.show_between(between(4, 3_100_000_000))
        assert served.picture(part.result_id)[0]["id"] == "between-4"


@pytest.mark.slow
def test_a_process_that_hangs_for_long_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path, silent_after_s=2.5) as served:
        assert served.ask("/").status == 200
        first = served.page.pid
        os.kill(first, signal.SIGSTOP)
        for number in range(_MOST_WAITING):  # more than the socket holds
            served.put(result(number))
        until(lambda: served.page.pid not in {None, first}, 30)
        assert served.ask("/").status == 200
    assert not is_alive(first)
    assert any("gives no sign of life within 2.5 s" in message for message in caplog.messages)


@pytest.mark.slow
def test_a_page_that_hangs_ends_with_an_agent_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from tests.support.pages import serving
with serving(Path({str(tmp_path)!r})) as served:
    served.ask("/")
    print(served.page.pid, flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as agent:  # noqa: S603 - our own
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        agent.kill()
    until(lambda: not is_alive(pid))


@pytest.mark.slow
def test_the_inspection_continues_while_its_page_is_killed_and_while_it_hangs(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(5))
    playing = {"playback": "realtime", "frames_per_s": 100, "loop": True}
    web = {"enabled": True, "port": closed_port()}
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera=playing, web=web)
    ended: set[int] = set()
    station = Running(config)
    try:
        for number in (signal.SIGKILL, signal.SIGSTOP):
            until(partial(new_pages, frozenset(ended)))
            for pid in pages_of_this_process() - ended:
                os.kill(pid, number)
                ended.add(pid)
            results = len(listener.on("/result"))
            listener.wait_for_more("/result", results + 50)
    finally:
        summary = station.end()
    assert summary.captured == summary.results + sum(summary.dropped.values())
    until(lambda: not any(map(is_alive, ended)))


def new_pages(before: frozenset[int]) -> set[int]:
    return pages_of_this_process() - before


def pages_of_this_process() -> set[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = {int(pid) for task in tasks for pid in task.read_text().split()}
    return {pid for pid in pids if b"agent.web.server_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(PageError, match=r"(?s)not installed: uvicorn.*pip install .*'\.\[web\]'"):
        check_packages()


def test_a_port_in_use_is_an_error_with_a_remedy(bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, ExitStack() as stack:
        port = other.getsockname()[1]
        config = load(write_config(tmp_path, bundle, 0, 1, web={"enabled": True, "port": port}))
        with pytest.raises(
            PageError, match=rf"(?s)cannot be served at http://127\.0\.0\.1:{port}/.*web\.port of its own"
        ):
            page_of(config, stack)
    with pytest.raises(PageError, match=r"http://\[::2\]:1/"):
        listening("::2", 1)


@pytest.mark.parametrize("token", ["", "short", "with blank inside", "umlaut-ü-inside"])
def test_a_token_that_does_not_fit_into_a_header_is_refused(bundle: Path, tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token + "\n")
    config = load(write_config(tmp_path, bundle, 0, 1, web={"enabled": True, "token_file": "token"}))
    with pytest.raises(ConfigError, match=r"web\.token_file: .* holds no valid token"):
        web_token(config)
    (tmp_path / "token").write_text("long-enough-1\n")
    assert web_token(config) == "long-enough-1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("agent.cli", {"starlette", "uvicorn", "h11"}),
        ("agent.web.server_main", {"paho", "onnxruntime", "onnx", "torch"}),
    ],
)
def test_each_process_has_its_own_packages_only(module: str, absent: set[str]) -> None:
    program = f"import sys, {module}; print(sorted({absent!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603 - our own
    assert ended.stdout.strip() == "[]"
