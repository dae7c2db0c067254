"""A configuration that is written loads back to the same values, and ``KEY=VALUE`` sets what it says."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from agent.config.model import AgentConfig, load
from agent.config.station_text import station_text, with_values
from agent.config.yaml_values import not_of_a_file, values_in
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINIMAL: dict[str, Any] = {"bundle": "./bundle", "camera": {"source": 0}}
EVERYTHING: dict[str, Any] = {
    "bundle": {"left": "./l", "right": "/opt/r"},
    "state_dir": "/var/lib/station",
    "station": {
        "enterprise": "Müller & Söhne",
        "site": "nord",
        "area": "a",
        "line": "1e3",
        "cell": "0x1F",
        "name": "no",
    },
    "camera": {
        "source": "rtspsrc location=rtsp://user:pass@10.0.0.5/1 latency=0 ! rtph264depay ! h264parse ! avdec_h264 ! "
        "videoconvert ! video/x-raw,format=BGR ! appsink drop=true",
        "playback": "fast",
        "frames_per_s": 12.5,
        "loop": True,
        "width": 640,
        "height": 480,
        "format": "MJPG",
        "exposure": "auto",
        "white_balance": 4500.0,
        "gain": 1.5,
        "buffer_frames": 2,
        "offset_x": None,
        "offset_y": None,
        "packet_bytes": None,
        "decoder": "opencv",
        "trigger": "off",
        "open_timeout_s": 20.0,
        "read_timeout_s": 3.0,
    },
    "trigger": {
        "source": "motion",
        "part_px": None,
        "turn": False,
        "every": 1,
        "delay_ms": 5,
        "settled_ms": 300,
        "unsettled_after_s": 5.0,
        "empty": "./empty.png",
        "frames_per_part": 3,
        "combine": "median",
        "least_decidable": 2,
    },
    "decision": {
        "threshold": None,
        "raise_after": 2,
        "raise_within": 3,
        "clear_after": 4,
        "clear_ratio": 0.8,
        "update_every_s": 5.0,
    },
    "checks": {"enabled": False, "alert_after_s": 3.0, "frozen_after": 20},
    "drift": {"enabled": False},
    "mqtt": {
        "host": "broker.example",
        "port": 8884,
        "protocol": "3.1.1",
        "client_id": "- press: 2",
        "username": "2e5",
        "password_file": "./mqtt-password",
        "password_credential": None,
        "tls": {"enabled": True, "ca_file": "/ca.pem", "cert_file": "/own.pem", "key_file": "/own.key"},
        "keepalive_s": 20,
    },
    "plc": {"deadline_ms": 250},
    "commands": {"accept": ["trigger", "mark"], "token_file": "./token"},
    "recalibration": {
        "parts": 100,
        "old_weight": 1.5,
        "shadow_parts": 50,
        "min_detection": 0.7,
        "least_detection": 0.4,
        "quiet_s": 20.0,
        "keep_bundles": 3,
    },
    "sparkplug": {
        "enabled": True,
        "group_id": "g",
        "edge_node_id": "e",
        "device_id": "d",
        "primary_host_id": "~",
    },
    "engine": {"backend": "onnxruntime", "threads": 2},
    "archive": {"enabled": False, "max_mib": 100, "max_age_days": 10, "ok_every": 0},
    "outbox": {"max_records": 200, "max_mib": 10, "max_age_days": 2},
    "statistics": {"enabled": False, "results": 2000, "shifts": {"early": "05:00", "late": "13:15"}},
    "metrics": {"enabled": True, "host": "0.0.0.0", "port": 9500},  # noqa: S104 - not listened on
    "web": {"enabled": True, "host": "::", "port": 8481, "names": ["line-box"], "token_file": "./web-token"},
    "log": {"level": "debug", "format": "json"},
}


def loaded(folder: Path, text: str) -> AgentConfig:
    (folder / "station.yaml").write_text(text, encoding="utf-8")
    return load(folder / "station.yaml")


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from keys_of(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def value_of(values: dict[str, Any], key: str) -> object:
    for name in key.split("."):
        values = values[name]
    return values


def test_every_key_of_the_reference_is_tried_here() -> None:
    for key in keys_of(AgentConfig):
        value_of(EVERYTHING, key)


def test_every_key_loads_back_to_the_same_value(tmp_path: Path) -> None:
    text = station_text(EVERYTHING)
    assert loaded(tmp_path, text) == loaded(
        tmp_path, yaml.safe_dump(EVERYTHING).replace("2e5", "'2e5'").replace("1e3", "'1e3'")
    )
    assert values_in(tmp_path / "station.yaml") == EVERYTHING


def test_each_key_is_explained_in_the_line_above_it(tmp_path: Path) -> None:
    text = station_text(EVERYTHING)
    assert all(len(line) <= 120 for line in text.splitlines())
    lines = text.splitlines()
    at = lines.index("  host: broker.example")
    assert lines[at - 1] == "  # Name or address of the broker."
    assert "# The broker." in lines
    assert loaded(tmp_path, text).mqtt.host == "broker.example"


def test_only_given_keys_are_written_in_the_order_of_the_reference() -> None:
    given = {"web": {"enabled": True}, "camera": {"source": 0}, "bundle": "b", "mqtt": None, "plc": {}}
    keys = [line for line in station_text(given).splitlines() if line and not line.lstrip().startswith("#")]
    assert keys == ["bundle: b", "camera:", "  source: 0", "web:", "  enabled: true"]


TEXT = st.text(max_size=200).filter(lambda text: not list(not_of_a_file(text)))
LEVEL = TEXT.filter(lambda text: text.strip() and not set(text) & set("/+#\0"))
NAME = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")
CONFIGURATIONS = st.fixed_dictionaries(
    {
        "bundle": st.just("./bundle") | st.dictionaries(NAME, st.just("b"), min_size=1, max_size=3),
        "camera": st.fixed_dictionaries(
            {"source": st.integers(0, 9) | st.sampled_from(["a ! b: c # d", "rtsp://x", "'q' ! \"p\"", "yes ! no"])},
            optional={
                "frames_per_s": st.floats(0.51, 1000),
                "gain": st.floats(0, 1e9),
                "exposure": st.floats(-1e6, 1e6) | st.just("auto") | st.none(),
                "loop": st.booleans(),
                "format": st.from_regex(r"\A[ -~]{4}\Z"),
            },
        ),
    },
    optional={
        "station": st.none() | st.dictionaries(st.sampled_from(["enterprise", "site", "line", "cell", "name"]), LEVEL),
        "mqtt": st.fixed_dictionaries(
            {}, optional={"client_id": TEXT.filter(bool), "username": TEXT.filter(bool), "port": st.integers(1, 65535)}
        ),
        "web": st.fixed_dictionaries({}, optional={"names": st.lists(TEXT, max_size=3)}),
        "sparkplug": st.fixed_dictionaries({}, optional={"group_id": st.none() | LEVEL}),
        "commands": st.fixed_dictionaries({"accept": st.lists(st.sampled_from(["trigger", "mark"]))}),
    },
)


@given(CONFIGURATIONS)
@example({**MINIMAL, "mqtt": {"client_id": "\x85"}})
@example({**MINIMAL, "mqtt": {"client_id": "a\n b\r\n\u2028 c: #d "}})
def test_any_configuration_loads_back_to_the_same_values(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    config = AgentConfig.model_validate(values, context={"folder": folder})
    assert loaded(folder, station_text(values)) == config
    read = values_in(folder / "station.yaml")
    assert {key: value for key, value in values.items() if value} == read


def test_values_are_set_by_their_dotted_keys(tmp_path: Path) -> None:
    before = {**deepcopy(MINIMAL), "mqtt": {"tls": {"ca_file": "/ca.pem"}, "host": "old"}}
    copy = deepcopy(before)
    given = [
        "camera.source=rtspsrc location=rtsp://10.0.0.5/1 ! a: b # c ! appsink",
        "camera.frames_per_s=1e1",
        "mqtt.tls.enabled=true",
        "mqtt.host=broker",
        "mqtt.client_id='7'",
        "plc.deadline_ms=250",
        "commands.accept=[trigger]",
        "bundle.left=./l",
        "web.names=[a=b]",
    ]
    values = with_values(before, given, tmp_path)
    assert values == {
        "bundle": {"left": "./l"},
        "camera": {"source": "rtspsrc location=rtsp://10.0.0.5/1 ! a: b # c ! appsink", "frames_per_s": 10.0},
        "mqtt": {"tls": {"ca_file": "/ca.pem", "enabled": True}, "host": "broker", "client_id": "7"},
        "plc": {"deadline_ms": 250},
        "commands": {"accept": ["trigger"]},
        "web": {"names": ["a=b"]},
    }
    assert before == copy
    loaded(tmp_path, station_text(values))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("camera.source", "'camera.source' is not KEY=VALUE"),
        ("=7", "'=7' is not KEY=VALUE"),
        ("", "'' is not KEY=VALUE"),
        ("mqtt.hots=x", "mqtt.hots: unknown key; did you mean 'host'?"),
        ("mqqt.host=x", "mqqt: unknown key; did you mean 'mqtt'?"),
        (".host=x", ": unknown key"),
        ("mqtt..host=x", "mqtt.: unknown key"),
        ("mqtt.host.name=x", "mqtt.host: "),
        ("mqtt=7", "mqtt: 7 is not allowed; use the keys host, port"),
        ("mqtt.port=seven", "mqtt.port: 'seven' is not allowed; use a whole number, 1 to 65535"),
        ("mqtt.port=2024-99-99", "mqtt.port: '2024-99-99' is not allowed"),
        ("mqtt.port=!!int ''", "mqtt.port: "),
        ("camera.source=", "camera.source: null is not allowed"),
        ("camera.width=640", "width and height belong together"),
        ("station.line=a\x07", "station.line: a value has the character U+0007"),
        ("trigger.settled_ms=90000", "trigger.settled_ms: 90000 is not allowed"),
        ("a=&x [*x]", "a: unknown key"),
    ],
)
def test_a_key_or_value_that_cannot_be_is_refused_in_words(tmp_path: Path, given: str, says: str) -> None:
    before = deepcopy(MINIMAL)
    with pytest.raises(ConfigError) as refusal:
        with_values(before, ["plc.deadline_ms=50", given], tmp_path)
    assert says in str(refusal.value)
    assert before == MINIMAL
