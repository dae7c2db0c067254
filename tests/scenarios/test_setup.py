"""A person with a camera and nothing else sets up a station in the browser."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.belt_camera import BeltCamera
from tests.support.chromium import Tab, require_chromium, text
from tests.support.real_broker import free_port
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

pytestmark = [pytest.mark.slow, pytest.mark.waits]

MARKED = "[...document.querySelectorAll('#tray li.marked button')]"


class Setup:
    """``shiftwatch-agent setup`` in an empty folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self._log = folder.with_suffix(".log")
        command = [
            sys.executable,
            "-m",
            "agent",
            "setup",
            "--port",
            str(port),
            "--config",
            str(folder / "station.yaml"),
        ]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own program

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def address(self) -> str:
        until(lambda: "Open this in a browser" in self.log, 30)
        found: list[str] = re.findall(r"http://127\.0\.0\.1:\d+/#\w+", self.log)
        return found[-1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)


class Person:
    """What a person does on the page, with the time of each step.

    Attributes:
        times_s: By step.
    """

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.times_s: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start_s = time.monotonic()
        self.click(f"#go-{name}")
        yield
        self.times_s[name] = self.times_s.get(name, 0.0) + time.monotonic() - start_s

    def click(self, selector: str) -> None:
        self.tab.until(f"document.querySelector({selector!r})?.checkVisibility()")
        self.tab.ask(f"document.querySelector({selector!r}).click()")

    def write(self, selector: str, value: str) -> None:
        self.tab.ask(
            f"(() => {{ const field = document.querySelector({selector!r}); field.value = {value!r};"
            " field.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )

    def draw_by_finger(self, begin: tuple[int, int], end: tuple[int, int]) -> None:
        left, top, width, height = self.tab.ask(
            "(() => { const box = document.getElementById('drawing').getBoundingClientRect();"
            " return [box.x, box.y, box.width, box.height]; })()"
        )

        def touch(kind: str, *points: tuple[int, int]) -> None:
            at = [{"x": left + x * width / 640, "y": top + y * height / 480} for x, y in points]
            self.tab._call("Input.dispatchTouchEvent", session=True, type=kind, touchPoints=at)

        touch("touchStart", begin)
        touch("touchMove", ((begin[0] + end[0]) // 2, (begin[1] + end[1]) // 2))
        touch("touchMove", end)
        touch("touchEnd")

    def count(self, identity: str) -> int:
        """The number that a text begins with."""
        return int(str(self.tab.ask(text(identity))).split()[0])


def test_a_person_with_a_camera_sets_up_a_station_that_rejects_a_real_defect(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_chromium()
    mosquitto.start()
    (tmp_path / "station").mkdir()
    port = free_port()
    setup = Setup(tmp_path / "station", port)
    start_s = time.monotonic()
    try:
        with BeltCamera() as camera, Tab() as tab:
            person = Person(tab)
            tab.look(1280, 900)
            tab._call("Page.navigate", session=True, url=setup.address)
            choose_camera(person, camera)
            draw_region(person)
            say_what_a_part_is(person, camera)
            collect(person, camera)

            setup.end(signal.SIGKILL)  # the power fails
            tab.until("document.body.dataset.link === 'lost'")
            setup = Setup(tmp_path / "station", port)
            tab.until("document.body.dataset.link === 'live'")
            assert tab.ask("document.querySelectorAll('#steps .done').length") >= 4

            teach(person)
            try_verdicts(person, camera)
            go(person, mosquitto.port)
            heard = listen(mosquitto.port)
            until_seen(camera, lambda: any(each["resultEvaluation"] == 2 and each["valid"] for each in heard.on("plc")))
            until(lambda: any(each["resultEvaluation"] == 1 and each["valid"] for each in heard.on("plc")), 30)
            assert [each for each in tab.complaints if "ERR_" not in each and "404" not in each] == []
    finally:
        setup.end()
    with capsys.disabled():
        steps = ", ".join(f"{name} {took_s:.0f} s" for name, took_s in person.times_s.items())
        print(f"\nset up by clicks and touches in {time.monotonic() - start_s:.0f} s: {steps}")  # noqa: T201 - its steps and times
    assert list(person.times_s) == ["camera", "region", "part", "collect", "teach", "test", "go"]


def until_seen(camera: BeltCamera, is_seen: Callable[[], object]) -> None:
    """Let scratched parts pass until one is seen: on a busy machine, a part may have gone before it was looked at."""
    for _ in range(10):
        camera.let_one_pass("scratch")
        if is_seen():
            return
    until(is_seen)


def choose_camera(person: Person, camera: BeltCamera) -> None:
    with person.step("camera"):
        person.write("[name=source]", "http://127.0.0.1:9/nothing")
        person.click("#camera-form button")
        person.tab.until(f"{text('no-picture')}.includes('127.0.0.1:9')")
        person.write("[name=source]", camera.address)
        person.click("#camera-form button")
        person.tab.until(f"{text('picture-facts')}.startsWith('640')")
        person.tab.until(f"{text('camera-figures')}.includes('of the best seen')")


def draw_region(person: Person) -> None:
    with person.step("region"):
        person.click("#draw-region")
        person.draw_by_finger((128, 48), (512, 432))
        person.tab.until("document.querySelector('#region-form [name=width]').value > 300")


def say_what_a_part_is(person: Person, camera: BeltCamera) -> None:
    with person.step("part"):
        person.click("[value=motion]")
        person.click("#part-form button")
        person.tab.until(f"{text('empty-text')}.startsWith('Without')")
        camera.order(is_empty="yes")
        time.sleep(1)  # until the last part has gone by: a person looks at the picture
        person.click("#empty-now")
        person.tab.until(f"{text('empty-text')}.startsWith('The empty place is known')")
        camera.order(is_empty="no")
        person.tab.until(f"parseInt({text('parts-seen')}) >= 3")


def collect(person: Person, camera: BeltCamera) -> None:
    with person.step("collect"):
        person.click("#collect")
        camera.let_pass(14)
        camera.let_one_pass("stray")
        camera.order(is_dirty="yes")
        camera.let_pass(2)
        camera.order(is_dirty="no")
        camera.let_pass(10)
        camera.let_one_pass("stray")
        camera.let_pass(10)
        person.tab.until(f"{text('collect')} === 'Stop collecting'")
        person.click("#collect")
        person.tab.until(f"{MARKED}.length >= 3 && !{text('tray-count')}.includes('strays')")
        for _ in range(20):
            if not person.tab.ask(f"{MARKED}.length"):
                break
            person.click("#tray li.marked button")
            person.click("#large-out")
            person.tab.until("!document.getElementById('large').open")
            before = person.count("tray-count")
            person.tab.until(f"parseInt({text('tray-count')}) <= {before}")
            person.tab.until("document.querySelector('#collect-form .answer').textContent === ''")
        assert person.count("tray-count") >= 25


def teach(person: Person) -> None:
    with person.step("teach"):
        person.click("#teach")
        person.tab.until("document.getElementById('teaching-bar').checkVisibility()")
        person.tab.until("document.getElementById('teach').checkVisibility()")
        assert "times in 10" in person.tab.ask(text("taught"))
        assert not person.tab.ask("document.querySelector('#taught .warning')")


def try_verdicts(person: Person, camera: BeltCamera) -> None:
    with person.step("test"):
        person.click("#test")
        person.tab.until(f"parseInt({text('test-counts')}) >= 3")
        until_seen(camera, lambda: person.tab.ask("!!document.querySelector('#tested li.defect img')"))


def go(person: Person, broker_port: int) -> None:
    with person.step("go"):
        person.write("#broker-form [name=host]", "127.0.0.1")
        person.write("#broker-form [name=port]", str(broker_port))
        person.click("#broker-form button")
        person.tab.until(f"{text('broker-result')}.includes('may publish and read')")
        person.click("#go")
        person.tab.until("!!document.getElementById('verdict')")  # the station's own page
        person.tab.until("!!document.querySelector('#verdict.ok, #verdict.not-ok')")
