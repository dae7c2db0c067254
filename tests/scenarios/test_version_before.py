"""A station of version 0.1.0 is run by this one: its configuration, its bundles, and the state that its agent left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.real_broker import Heard, Listener, broker_in, wait_for
from tests.support.sparkplug_host import HostApplication, Message, check_the_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paho.mqtt.client import Client, MQTTMessage

pytestmark = pytest.mark.slow
BEFORE = Path(__file__).with_name("version_0_1_0")
INSTALLED_IN = "/srv/washers"
ROOT = "acme/north/press/2/cell4/vision/washers"
COMMANDED_THRESHOLD = 120.0
OK, NOT_OK, NOT_DECIDABLE = 1, 2, 3
TIMEOUT_S = 60.0

Content = dict[str, Any]


def station_in(folder: Path, port: int = 1883) -> Path:
    """What the old version left, as if it had been installed in this folder; returns it."""
    station = Path(shutil.copytree(BEFORE, folder / "washers"))
    state = station / "state"
    shutil.unpack_archive(state / "packed.tar.xz", state)
    (station / "command-token").chmod(0o600)  # a clone leaves it readable to all, which the log would mention
    versions, configuration = state / "versions.json", station / "station.yaml"
    versions.write_text(versions.read_text().replace(INSTALLED_IN, str(station)))
    configuration.write_text(configuration.read_text().replace("port: 1883", f"port: {port}"))
    return station


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """A command that ends well."""
    ended = subprocess.run(  # noqa: S603 - our own programs
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert ended.returncode == 0, ended
    return ended


def agent(station: Path, *arguments: object) -> str:
    """What ``shiftwatch-agent`` prints."""
    return run(sys.executable, "-m", "agent", *arguments, "--config", station / "station.yaml").stdout


def calibrate(*arguments: object) -> str:
    """What ``shiftwatch-calibrate`` prints."""
    return run(Path(sys.executable).with_name("shiftwatch-calibrate"), *arguments).stdout


def made_here(station: Path) -> Path:
    """The bundle that the old agent made when it learnt on."""
    (bundle,) = (station / "state" / "bundles").iterdir()
    return bundle


def served(station: Path) -> list[Content]:
    content: Content = json.loads((station / "state" / "versions.json").read_text())
    return list(content["served"])


def records(station: Path, outbox: str = "outbox.sqlite") -> list[tuple[str, Content]]:
    """Topic and content of what waits, the oldest first."""
    with closing(sqlite3.connect(station / "state" / outbox)) as database:
        rows = database.execute("SELECT topic, payload FROM record ORDER BY id").fetchall()
    return [(topic, json.loads(payload)) for topic, payload in rows]


def audit_lines(station: Path) -> list[bytes]:
    return (station / "state" / "audit.jsonl").read_bytes().splitlines()


def pictures(station: Path) -> dict[str, Content]:
    """What stands beside each picture of the archive, by its result."""
    files = sorted((station / "state" / "archive").glob("*/*.json"))
    return {content["resultId"]: content for content in (json.loads(file.read_text()) for file in files)}


def listed_pictures(station: Path) -> dict[str, Content]:
    lines = agent(station, "archive", "list", "--limit", 1000, "--json").splitlines()
    return {content["resultId"]: content for content in map(json.loads, lines)}


class PlainListener(Listener):
    """Leaves to their host the messages of Sparkplug, which are no JSON."""

    def _on_message(self, client: Client, data: object, message: MQTTMessage) -> None:
        if not message.topic.startswith("spBv1.0/"):
            super()._on_message(client, data, message)


@dataclass(frozen=True)
class Continued:
    """The old station after this version's agent has run it, and what the line heard meanwhile.

    Attributes:
        before: The same station as the old agent left it.
        station: As this one left it.
        code: Exit code of the agent.
        log: Of the agent.
    """

    before: Path
    station: Path
    heard: list[Heard]
    heard_by_host: list[Message]
    code: int
    log: str

    def on(self, level: str) -> list[Content]:
        return [message.content for message in self.heard if message.topic == f"{ROOT}/{level}"]

    def new_results(self) -> list[Content]:
        """Of frames that the old agent has not seen."""
        return [result for result in self.on("result") if not result["historical"]]


@pytest.fixture
def station(tmp_path: Path) -> Path:
    return station_in(tmp_path)


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Continued]:
    """Run until the old records are out and each kind of frame was judged anew; then go back to the first bundle."""
    folder = tmp_path_factory.mktemp("continued")
    before = station_in(folder / "before")
    with ExitStack() as stack:
        mosquitto = stack.enter_context(broker_in(folder / "mosquitto"))
        stack.callback(mosquitto.stop)  # also where something fails here
        mosquitto.start()
        station = station_in(folder, mosquitto.port)
        listener, host = PlainListener(mosquitto.port), HostApplication(mosquitto.port, "press/washers")
        stack.callback(listener.close)
        stack.callback(host.close)
        log = folder / "agent.log"
        file = stack.enter_context(log.open("w"))
        command = [sys.executable, "-m", "agent", "run", "--config", str(station / "station.yaml")]
        process = stack.enter_context(subprocess.Popen(command, stdout=file, stderr=file))  # noqa: S603 - our own program
        stack.callback(process.kill)
        everything, first = {OK, NOT_OK, NOT_DECIDABLE}, served(before)[0]["identity"]
        wait_for(lambda: process.poll() is not None or everything <= judged_anew(listener), TIMEOUT_S)
        wait_for(lambda: process.poll() is not None or everything <= judged_anew(host), TIMEOUT_S)
        assert process.poll() is None, log.read_text()
        agent(station, "command", "rollback", first)
        wait_for(lambda: listener.on("/info")[-1]["bundleHash"] == first, TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        code = process.wait(TIMEOUT_S)
        wait_for(lambda: not listener.on("/status")[-1]["online"])
        yield Continued(before, station, listener.heard, host.heard, code, log.read_text())


def judged_anew(ear: Listener | HostApplication) -> set[int]:
    """Verdicts on frames that the old agent has not seen."""
    if isinstance(ear, Listener):
        return {result["resultEvaluation"] for result in ear.on("/result") if not result["historical"]}
    data = [message for message in ear.on("DDATA") if "result/resultId" in message.names]
    return {message["result/resultEvaluation"] for message in data if not message.is_historical}


def test_the_old_configuration_is_accepted_without_a_warning(station: Path) -> None:
    file = station / "station.yaml"
    checked = run(sys.executable, "-m", "agent", "config", file)
    assert (checked.stdout.replace("\n", ""), checked.stderr) == (f"{file}: well-formed", "")


def test_the_old_bundle_and_the_recalibrated_one_score_as_they_did(station: Path) -> None:
    for bundle in (station / "bundle", made_here(station)):
        printed = calibrate("verify", bundle).replace("\n", "")
        assert f"{bundle}: all files are intact, all scores within 0.001" in printed


def test_the_old_audit_log_is_as_it_was_written(station: Path) -> None:
    lines = audit_lines(station)
    printed = agent(station, "audit", "verify", "--head", json.loads(lines[-1])["hash"])
    assert f"{len(lines)} entries" in printed
    assert "the entry with this hash is present" in printed
    assert "intact" in printed
    events = [json.loads(line)["event"] for line in lines]
    assert json.loads(agent(station, "audit", "show", "--json").splitlines()[-1]) == json.loads(lines[-1])
    assert {"started", "command", "recalibrated", "rolled back"} == set(events)


def test_the_old_images_are_listed_with_what_was_said_of_them(station: Path) -> None:
    kept, listed = pictures(station), listed_pictures(station)
    assert listed.keys() == kept.keys()
    assert {listed[result]["class"] for result in listed} == {"ok", "not_ok", "not_decidable"}
    for result, content in kept.items():
        assert (listed[result]["score"], listed[result]["seq"]) == (content["score"], content["seq"])
        assert Path(listed[result]["framePath"]).is_file()
    (marked,) = [picture for picture in listed.values() if picture["label"] is not None]
    assert (marked["label"], marked["markedBy"]) == ("defect", "M. Bauer")
    assert marked["resultId"] in agent(station, "archive", "show", marked["resultId"][:8])


def test_the_old_versions_are_listed_and_their_bundles_are_there(station: Path) -> None:
    rows = agent(station, "versions").splitlines()[1:]
    assert [row.split()[2] for row in rows] == [version["identity"][:12] for version in served(station)]
    assert [row.split()[3] for row in rows] == [f"{version['threshold']:g}" for version in served(station)]
    assert [row.split()[-1] for row in rows] == ["yes"] * len(rows)
    assert "recalibrated, full, 30 parts: new lamp" in rows[1]
    assert "rolled back" in rows[2]


def test_what_waited_in_the_old_outbox_is_delivered_as_it_was_recorded_oldest_first_and_once(
    continued: Continued,
) -> None:
    waited = [(topic, {**content, "historical": True}) for topic, content in records(continued.before)]
    assert {topic for topic, _ in waited} == {f"{ROOT}/result", f"{ROOT}/alert"}
    arrived = [
        (message.topic, message.content)
        for message in continued.heard
        if message.topic in {f"{ROOT}/result", f"{ROOT}/alert"}
    ]
    assert [each for each in arrived if each in waited] == waited
    identities = [content["resultId"] for topic, content in arrived if topic == f"{ROOT}/result"]
    assert len(set(identities)) == len(identities)
    assert not [record for record in records(continued.station) if record in records(continued.before)]


def test_what_waited_for_sparkplug_is_delivered_too(continued: Continued) -> None:
    check_the_rules(continued.heard_by_host)
    waited = [content for _, content in records(continued.before, "sparkplug.sqlite")]
    data = [message for message in continued.heard_by_host if message.verb == "DDATA"]
    historical = [message for message in data if message.is_historical]
    results = [message for message in historical if "result/resultId" in message.names]
    alerts = [message for message in historical if "alert/alertId" in message.names]
    old_results = [content for content in waited if "alertId" not in content]
    assert [message["result/resultId"] for message in results] == [each["resultId"] for each in old_results]
    assert [message["result/score"] for message in results] == [each["score"] for each in old_results]
    old_alerts = [(each["alertId"], each["type"]) for each in waited if "alertId" in each]
    assert [(each["alert/alertId"], each["alert/type"]) for each in alerts][: len(old_alerts)] == old_alerts
    left = [content for _, content in records(continued.station, "sparkplug.sqlite")]
    assert not [content for content in left if content in waited]


def test_alerts_that_were_active_when_the_old_agent_died_are_ended(continued: Continued) -> None:
    active = json.loads((continued.before / "state" / "active_alert.json").read_text())
    assert sorted(alert["cause"] for alert in active) == ["camera dark", "defect"]
    for alert in active:
        told = [each for each in continued.on("alert") if each["alertId"] == alert["alertId"]]
        assert [each["type"] for each in told] == ["new", "end"]
        assert (told[-1]["startTime"], told[-1]["resultId"]) == (alert["startTime"], None)
        assert told[-1]["endTime"] >= alert["startTime"]
    assert not (continued.station / "state" / "active_alert.json").exists()
    still = {alert["alertId"] for state in continued.on("alert/state") for alert in state["active"]}
    assert still.isdisjoint(alert["alertId"] for alert in active)


def test_the_bundle_and_the_threshold_that_were_commanded_are_still_in_force(continued: Continued) -> None:
    last = served(continued.before)[-1]
    info = continued.on("info")
    assert (info[0]["bundleHash"], info[0]["threshold"]) == (last["identity"], COMMANDED_THRESHOLD)
    verdicts = {
        result["resultEvaluation"]: result
        for result in reversed(continued.new_results())
        if result["threshold"] == COMMANDED_THRESHOLD
    }
    assert verdicts.keys() == {OK, NOT_OK, NOT_DECIDABLE}
    assert verdicts[OK]["score"] < COMMANDED_THRESHOLD < verdicts[NOT_OK]["score"]


def test_a_part_scores_what_it_scored_before(continued: Continued) -> None:
    old = [content for topic, content in records(continued.before) if topic == f"{ROOT}/result"]
    new = [result for result in continued.new_results() if result["threshold"] == COMMANDED_THRESHOLD]
    for evaluation in (OK, NOT_OK):
        scored = {each["score"] for each in old if each["resultEvaluation"] == evaluation}
        again = next(each["score"] for each in new if each["resultEvaluation"] == evaluation)
        assert any(again == pytest.approx(score, rel=1e-3) for score in scored)


def test_it_goes_back_to_the_bundle_that_the_old_version_was_configured_with(continued: Continued) -> None:
    first, last = served(continued.before)[0], continued.on("info")[-1]
    assert (last["bundleHash"], last["threshold"]) == (first["identity"], first["threshold"])
    after = served(continued.station)
    assert [version["identity"] for version in after[: len(served(continued.before))]] == [
        version["identity"] for version in served(continued.before)
    ]
    assert after[-1]["identity"] == first["identity"]
    assert "rolled back" in agent(continued.station, "versions").splitlines()[-1]


def test_the_agent_ends_cleanly_and_complains_of_nothing_old(continued: Continued) -> None:
    assert continued.code == 0, continued.log
    status = continued.on("status")[-1]
    assert (status["online"], status["reason"]) == (False, "stopped")
    warnings = [line for line in continued.log.splitlines() if "WARNING" in line]
    assert all("was active when the agent died" in line for line in warnings), warnings
    errors = [line for line in continued.log.splitlines() if "ERROR" in line or "Traceback" in line]
    assert all("the frame is dark" in line for line in errors), errors


def test_the_old_audit_log_is_continued(continued: Continued) -> None:
    old, now = audit_lines(continued.before), audit_lines(continued.station)
    assert now[: len(old)] == old
    assert [json.loads(line)["event"] for line in now[len(old) :]] == ["command", "rolled back"]
    printed = agent(continued.station, "audit", "verify", "--head", json.loads(old[-1])["hash"])
    assert f"{len(now)} entries" in printed
    assert "the entry with this hash is present" in printed


def test_new_images_join_the_old_ones(continued: Continued) -> None:
    old, listed = pictures(continued.before), listed_pictures(continued.station)
    assert old.keys() < listed.keys()
    assert listed.keys() == pictures(continued.station).keys()
    new = {result["resultId"] for result in continued.new_results() if result["imageRef"] is not None}
    assert new & listed.keys()
    assert [listed[result]["label"] for result in old].count("defect") == 1
