"""The live page as a person has it: a real station, a real browser."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.archive.entry import CLASSES
from agent.archive.query import ArchiveQuery, open_reader
from tests.support.chromium import Tab, require_chromium, text
from tests.support.pages import TOKEN
from tests.support.stations import (
    THRESHOLD,
    Agent,
    broken_parts,
    closed_port,
    good_parts,
    until,
    write_config,
    write_pictures,
)

if TYPE_CHECKING:
    from agent.messages.records import Evaluation
    from tests.support.real_broker import Mosquitto

pytestmark = pytest.mark.waits

COLOURS = """(() => {
    const canvas = document.getElementById("frame");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(data.filter((_, place) => place % 4 === 0)).size;
})()"""


def enter(identity: str, value: object) -> str:
    element = f"document.getElementById('{identity}')"
    return f"{element}.value = {json.dumps(value)}; {element}.dispatchEvent(new Event('input'))"


def click(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).click()"


def page_of(agent: Agent) -> int | None:
    tasks = Path(f"/proc/{agent.process.pid}/task").glob("*/children")
    pids = [int(pid) for task in tasks for pid in task.read_text().split()]
    return next((pid for pid in pids if b"agent.web.server_main" in Path(f"/proc/{pid}/cmdline").read_bytes()), None)


def audited(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "state" / "audit.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == "command"]


@pytest.mark.slow
def test_a_person_sees_and_changes_the_station_and_sees_when_it_is_gone(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path
) -> None:
    require_chromium()
    mosquitto.start()
    parts = write_pictures(tmp_path / "parts", [*good_parts(5), *broken_parts(1)])
    (tmp_path / "token").write_text(TOKEN)
    web = {"enabled": True, "port": closed_port(), "token_file": "token"}
    camera = {"playback": "realtime", "frames_per_s": 12, "loop": True}
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=camera, web=web, archive={"ok_every": 5})
    with Agent(config) as agent, Tab() as tab:
        until(lambda: "live page at" in agent.log)
        tab.open(f"http://127.0.0.1:{web['port']}/")
        check_what_is_seen(tab)
        check_what_is_refused(tab, tmp_path)
        check_what_is_changed(tab, tmp_path)
        check_the_archive(tab, tmp_path)
        assert [each for each in tab.complaints if "401 " not in each and "409 " not in each] == []
        check_that_a_phone_shows_it_all(tab)
        check_that_nothing_old_looks_live(tab, agent)


def check_what_is_seen(tab: Tab) -> None:
    tab.until(f"{text('word')} === 'NOT OK'")
    tab.until("document.getElementById('stage').dataset.fetched > 1")
    assert tab.ask(COLOURS) > 50
    tab.until("document.querySelector('#marks .defect') !== null")
    tab.until("(document.querySelector('#chart .mark.not-ok')?.getAttribute('d') ?? '').length > 10")
    tab.until("(document.querySelector('#chart .mark.ok')?.getAttribute('d') ?? '').length > 10")
    assert tab.ask("document.querySelector('#chart .threshold').getBoundingClientRect().width") > 100
    assert "NOT OK" in tab.until(f"{text('rejects')}")
    figures = tab.until(f"{text('figures')}.includes('MQTTconnected') && {text('figures')}")
    assert "inspecting" in figures
    assert "gives frames" in figures
    assert tab.ask(text("link")) == "live"
    assert "severity" in tab.until(f"{text('alerts')}")


def check_what_is_refused(tab: Tab, folder: Path) -> None:
    assert tab.ask("document.getElementById('unlocked').hidden")
    tab.ask(f"{enter('token', 'guessed-wrong')}; {click('#unlock button')}")
    assert "the token is wrong" in tab.until(f"{text('unlock-answer')}.includes('token') && {text('unlock-answer')}")
    status = "fetch('command/pause', {method: 'POST', body: '{}'}).then(answer => answer.status)"
    assert tab.ask(status) == 401
    assert audited(folder) == []


def check_what_is_changed(tab: Tab, folder: Path) -> None:
    tab.ask(f"{enter('token', TOKEN)}; {click('#unlock button')}")
    tab.until("!document.getElementById('unlocked').hidden")
    tab.ask(enter("threshold-slider", 300))  # of a thousand up to ten times as much
    assert "of the drawn defects are found (now: " in tab.ask(text("threshold-expected"))
    tab.until(f"/^Of the last \\d+ parts \\d+ lie above/.test({text('threshold-effect')})")
    tab.ask(click("#threshold-set"))
    tab.until(f"{text('threshold-answer')}.startsWith('Done')")
    tab.until(f"{text('figures')}.includes('set by command')")
    (entry,) = audited(folder)
    assert (entry["command"], entry["by"], entry["via"]) == ("threshold", "web", "local")
    assert entry["args"] == {"threshold": pytest.approx(THRESHOLD * 10**0.3, rel=1e-3), "zone": None}
    tab.ask(f"{enter('threshold-number', THRESHOLD * 1000)}; {click('#threshold-set')}")
    assert "times away from the calibrated" in tab.until(
        f"{text('threshold-answer')}.startsWith('Refused') && {text('threshold-answer')}"
    )
    tab.ask(click("#threshold-back"))
    tab.until(f"{text('figures')}.includes('or configured')")
    tab.ask(f"{enter('reason', 'lens is being cleaned')}; {click('#pause-button')}")
    tab.until(f"{text('word')} === 'PAUSED' && {text('why')}.includes('by web: lens is being cleaned')")
    tab.ask(click("#pause-button"))
    tab.until(f"{text('word')} !== 'PAUSED'")
    assert [entry["command"] for entry in audited(folder)] == ["threshold", "threshold", "pause", "resume"]


def check_the_archive(tab: Tab, folder: Path) -> None:
    """A reject is marked good; then a picture that passed is marked as a missed defect."""
    for verdict, label in (("not_ok", "good"), ("ok", "defect")):
        choice = "document.getElementById('archive-verdict')"
        tab.ask(f"{choice}.value = '{verdict}'; {choice}.dispatchEvent(new Event('change'))")
        missed = f"document.getElementById('archive-missed').hidden === {json.dumps(verdict != 'ok')}"
        tab.until(f"{missed} && (document.querySelector('#pictures img')?.naturalWidth ?? 0) > 50")
        first = "document.querySelector('#pictures li')?.dataset.id ?? ''"
        until(lambda first=first, verdict=verdict: is_kept(folder, str(tab.ask(first)), CLASSES[verdict]))  # type: ignore[misc]
        marked = tab.ask(first)
        item = f"document.querySelector('#pictures li[data-id=\"{marked}\"]')"
        tab.ask(f"{item}.querySelector('.marking button').click()")
        tab.until(f"{item}.querySelector('.label').textContent === 'marked {label} by web'")
        with open_reader(folder / "state" / "archive") as archive:
            picture = archive.named(str(marked))
        assert (picture.evaluation, picture.label, picture.marked_by) == (CLASSES[verdict], label, "web")
        entry = audited(folder)[-1]
        assert (entry["command"], entry["args"]) == ("mark", {"resultId": marked, "label": label, "by": None})


def is_kept(folder: Path, result_id: str, evaluation: Evaluation) -> bool:
    """Whether there is a picture of this result, with this verdict."""
    with open_reader(folder / "state" / "archive") as archive:
        kept = archive.newest(ArchiveQuery(evaluation=evaluation), 9999)
        return result_id in {picture.result_id for picture in kept}


def check_that_a_phone_shows_it_all(tab: Tab) -> None:
    for width, height in ((360, 740), (1024, 768), (1280, 900), (1920, 1080)):
        tab.look(width, height)
        tab.until(f"document.documentElement.scrollWidth <= {width}")
    assert tab.ask("document.getElementById('state').getBoundingClientRect().bottom") <= 1080
    assert tab.ask("document.getElementById('history').getBoundingClientRect().bottom") <= 1080
    assert tab.ask("parseFloat(getComputedStyle(document.getElementById('word')).fontSize)") > 100


def check_that_nothing_old_looks_live(tab: Tab, agent: Agent) -> None:
    tab.ask("window.before = true")
    page = page_of(agent)
    assert page is not None
    for pid in (agent.process.pid, page):
        os.kill(pid, signal.SIGSTOP)
    tab.until(f"{text('word')} === 'NO CONNECTION' && document.body.dataset.link === 'lost'")
    assert tab.ask("document.getElementById('stage').classList.contains('old')")
    os.kill(page, signal.SIGCONT)
    tab.until(f"{text('word')} === 'NO ANSWER' && document.body.dataset.link === 'lost'")
    os.kill(agent.process.pid, signal.SIGCONT)
    tab.until("document.body.dataset.link === 'live'")
    os.kill(page, signal.SIGKILL)
    tab.until("document.body.dataset.link === 'lost'")
    tab.until("document.body.dataset.link === 'live'")
    assert page_of(agent) != page
    assert tab.ask("window.before") is True  # it came back by itself, without being loaded again
