from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from agent.config import model
from agent.config.model import AgentConfig, load
from agent.config.services import EngineConfig
from agent.errors import ConfigError
from calibration.deployment.backends import AUTO, BACKENDS

MINIMAL = "bundle: bundle\ncamera:\n  source: 0\n"
SOURCES = (
    "a device number, a GenICam camera (genicam:SERIAL), an rtsp:// or http(s):// URL, a GStreamer pipeline, a video "
    "or an image folder"
)
PIXEL_FORMAT = "a pixel format for a GenICam camera"
AT_ONCE = (
    "the camera takes an image when the line names a part, at once; set trigger.source: command and remove "
    "trigger.delay_ms, or remove camera.trigger"
)
LEVEL = "text without / + #, in quotes if it is a number"


def written(folder: Path, text: str) -> Path:
    path = folder / "agent.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refusal:
        load(written(folder, text))
    return refusal.value.problems


def test_a_minimal_file_loads_with_defaults(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, MINIMAL))
    assert loaded.camera.source == 0
    assert loaded.camera.playback == "realtime"
    assert loaded.decision.threshold is None
    assert (loaded.mqtt.host, loaded.mqtt.port, loaded.mqtt.protocol) == ("localhost", 1883, "5")
    assert loaded.station.name == "station"


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    text = (
        "bundle: ../bundles/nut\ncamera: {source: ./clips/line.mp4}\n"
        "mqtt: {username: u, password_file: secret, tls: {enabled: true, ca_file: /etc/ca.pem}}"
    )
    written(folder, text)
    monkeypatch.chdir(tmp_path)
    loaded = load((folder / "agent.yaml").relative_to(tmp_path))
    assert loaded.bundle == {"": tmp_path / "bundles" / "nut"}
    assert loaded.state_dir == folder / "state"
    assert loaded.camera.source == str(folder / "clips" / "line.mp4")
    assert loaded.mqtt.password_file == folder / "secret"
    assert str(loaded.mqtt.tls.ca_file) == "/etc/ca.pem"


def test_each_zone_may_have_a_bundle_of_its_own(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, "bundle: {thread: a, label-2: /b}\ncamera: {source: 0}"))
    assert loaded.bundle == {"thread": tmp_path / "a", "label-2": Path("/b")}
    assert model.named_paths(loaded) == {"bundle.thread": tmp_path / "a", "bundle.label-2": Path("/b")}


@pytest.mark.parametrize(
    "bundle", ["{}", "{a: 5}", "{a/b: c}", "{'': a}", "{a: ''}", "''", "null", "7", "[a]", "{a: {b: c}}"]
)
def test_a_bundle_is_a_path_or_a_path_for_each_zone(tmp_path: Path, bundle: str) -> None:
    (problem,) = problems_of(tmp_path, f"bundle: {bundle}\ncamera: {{source: 0}}")
    assert problem.startswith("bundle: ")
    assert problem.endswith(
        " is not allowed; use a path, or for each zone its name (letters, digits, - and _) and a path"
    )


def test_one_threshold_does_not_fit_several_zones(tmp_path: Path) -> None:
    text = "bundle: {a: x, b: y}\ncamera: {source: 0}\ndecision: {threshold: 5}"
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith("decision.threshold is one number")
    assert load(written(tmp_path, text.replace(", b: y", ""))).decision.threshold == 5.0


@pytest.mark.parametrize(
    "source", ["rtsp://camera/line", "videotestsrc ! appsink", "/dev/v4l/by-id/x", "/data/clip.mp4"]
)
def test_sources_that_are_no_relative_path_stay_as_written(tmp_path: Path, source: str) -> None:
    assert load(written(tmp_path, f"bundle: b\ncamera: {{source: '{source}'}}")).camera.source == source


def test_a_relative_link_to_a_device_starts_at_the_folder_of_the_file_and_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "left").symlink_to("/dev/video77")
    loaded = load(written(tmp_path, "bundle: b\ncamera: {source: left}"))
    assert loaded.camera.source == str(tmp_path / "left")
    assert "camera.source" not in model.named_paths(loaded)


def test_exposure_and_white_balance_are_numbers_or_automatic(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, "bundle: b\ncamera: {source: 0, exposure: 100, white_balance: auto}"))
    assert (loaded.camera.exposure, loaded.camera.white_balance, loaded.camera.gain) == (100.0, "auto", None)


def test_the_example_loads(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, model.example()))
    assert loaded.bundle == {"": tmp_path / "bundle"}


def test_the_example_also_loads_with_every_suggestion_taken(tmp_path: Path) -> None:
    text = re.sub(
        r"^( +)# (?=\S+:)|^( +)#   (?=\S+:)",
        lambda found: found[1] or f"{found[2]}  ",
        model.example(),
        flags=re.MULTILINE,
    )
    loaded = load(written(tmp_path, text))
    assert loaded.mqtt.tls.enabled
    assert loaded.mqtt.username == "station"


@pytest.mark.parametrize(
    ("tls", "port"),
    [("{enabled: true}", 8883), ("{enabled: true}, port: 1234", 1234), ("{enabled: false}", 1883), ("null", 1883)],
)
def test_the_port_follows_tls_unless_it_is_given(tmp_path: Path, tls: str, port: int) -> None:
    assert load(written(tmp_path, f"{MINIMAL}mqtt: {{tls: {tls}}}")).mqtt.port == port


def test_a_section_whose_lines_are_all_commented_out_has_its_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, f"{MINIMAL}mqtt:\n  # host: broker\n")).mqtt.host == "localhost"


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    assert load(written(tmp_path, f"{MINIMAL}decision: {{threshold: 2e3}}")).decision.threshold == 2000.0


def test_protocol_five_needs_no_quotes(tmp_path: Path) -> None:
    assert load(written(tmp_path, f"{MINIMAL}mqtt: {{protocol: 5}}")).mqtt.protocol == "5"
    assert load(written(tmp_path, f"{MINIMAL}mqtt: {{protocol: 3.1.1}}")).mqtt.protocol == "3.1.1"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("camera: {source: 0, playback: fastt}", "camera.playback: 'fastt' is not allowed; use one of: realtime, fast"),
        ("camera: {source: 0, loop: 1}", "camera.loop: 1 is not allowed; use true or false"),
        ("camera: {source: -1}", f"camera.source: -1 is not allowed; use {SOURCES}"),
        ("camera: {source: true}", f"camera.source: true is not allowed; use {SOURCES}"),
        ("camera: {source: ''}", f"camera.source: '' is not allowed; use {SOURCES}"),
        ("camera: {playback: fast}", f"camera.source: missing; use {SOURCES}"),
        ("camera: null", f"camera.source: missing; use {SOURCES}"),
        ("camera: {source: 0, width: 640}", "camera: width and height belong together; give both or neither"),
        ("camera: {source: 0, format: MJPEG}", "camera: format MJPEG is not four characters, as MJPG and YUYV are"),
        (
            "camera: {source: 0, format: JPG}",
            f"camera.format: 'JPG' is not allowed; use four characters for a device, {PIXEL_FORMAT}",
        ),
        (
            "camera: {source: 0, trigger: Line1}",
            "camera: trigger is given, but source is no GenICam camera; remove it, or set source to genicam:SERIAL",
        ),
        (
            "camera: {source: 'genicam:', offset_x: -1}",
            "camera.offset_x: -1 is not allowed; use a whole number, 0 to 65535",
        ),
        (
            "camera: {source: 'genicam:', trigger: software}",
            f"camera.trigger is software: {AT_ONCE}",
        ),
        ("camera: {source: 0, exposure: bright}", "camera.exposure: 'bright' is not allowed; use a number, or auto"),
        ("camera: {source: 0, exposure: .nan}", "camera.exposure: nan is not allowed; use a number, or auto"),
        (
            "camera: {source: 0, white_balance: true}",
            "camera.white_balance: true is not allowed; use a number, or auto",
        ),
        ("camera: {source: 0, white_balance: [1]}", "camera.white_balance: [1] is not allowed; use a number, or auto"),
        ("camera: {source: 0, read_timeout_s: 0}", "camera.read_timeout_s: 0 is not allowed; use a number, 0.1 to 600"),
        (
            "camera: {source: 0, frames_per_s: .inf}",
            "camera.frames_per_s: inf is not allowed; use a number above 0, at most 1000",
        ),
        (
            "decision: {clear_ratio: 1.5}",
            "decision.clear_ratio: 1.5 is not allowed; use a number above 0, at most 1",
        ),
        ("decision: {threshold: .nan}", "decision.threshold: nan is not allowed; use a number above 0"),
        ("decision: {raise_after: 1.5}", "decision.raise_after: 1.5 is not allowed; use a whole number, 1 or more"),
        (
            "decision: {raise_after: 3, raise_within: 2}",
            "decision: raise_within 2 cannot hold raise_after 3; give as many or more",
        ),
        (
            "engine: {backend: gpu}",
            (
                "engine.backend: 'gpu' is not allowed; use one of: auto, tensorrt, tensorrt_rtx, cuda, openvino, "
                "onnxruntime"
            ),
        ),
        ("mqtt: {port: '1883'}", "mqtt.port: '1883' is not allowed; use a whole number, 1 to 65535"),
        ("mqtt: {protocol: 4}", "mqtt.protocol: 4 is not allowed; use one of: 5, 3.1.1"),
        ("mqtt: {password: secret}", "mqtt.password: unknown key; did you mean 'password_file'?"),
        ("mqtt: {password_file: f}", "mqtt: password_file is given without username; give both"),
        ("mqtt: {password_credential: c}", "mqtt: password_credential is given without username; give both"),
        (
            "mqtt: {username: u, password_file: f, password_credential: c}",
            "mqtt: password_file and password_credential are given; give one",
        ),
        (
            "mqtt: {tls: {enabled: true, key_file: f}}",
            "mqtt.tls: cert_file and key_file belong together; give both or neither",
        ),
        (
            "mqtt: {tls: {ca_file: f}}",
            "mqtt.tls: certificates are given, but enabled is false; set it to true or remove them",
        ),
        ("archive: 5", "archive: 5 is not allowed; use the keys enabled, max_mib, max_age_days, ok_every"),
        ("station: {line: 1}", f"station.line: 1 is not allowed; use {LEVEL}"),
        ("station: {line: a/b}", f"station.line: 'a/b' is not allowed; use {LEVEL}"),
        ("station: {line: ' '}", f"station.line: ' ' is not allowed; use {LEVEL}"),
        ("state_dir: ''", "state_dir: '' is not allowed; use a path"),
        ("camra: {}", "camra: unknown key; did you mean 'camera'?"),
        ("outbox: {zzz: 1}", "outbox.zzz: unknown key; use one of: max_records, max_mib, max_age_days"),
        ("outbox: {1: 1}", "outbox.1: unknown key; use one of: max_records, max_mib, max_age_days"),
    ],
)
def test_a_mistake_is_reported_with_key_value_and_what_is_allowed(tmp_path: Path, lines: str, problem: str) -> None:
    camera = "" if lines.startswith("camera:") else "camera: {source: 0}\n"
    assert problems_of(tmp_path, f"bundle: b\n{camera}{lines}\n") == (problem,)


@pytest.mark.parametrize(
    ("lines", "possible", "problem"),
    [
        (
            "camera: {source: 0}\ntrigger: {source: command, delay_ms: 150}\nplc: {deadline_ms: 150}\n",
            ("delay_ms: 150", "delay_ms: 149"),
            "trigger.delay_ms 150 is not below plc.deadline_ms 150: both begin with the trigger, ",
        ),
        (
            "camera: {source: 0}\ntrigger: {source: motion, settled_ms: 500, unsettled_after_s: 0.5}\n",
            ("motion", "every_frame"),
            "trigger: settled_ms 500 is not below unsettled_after_s 0.5: every part would be reported as unsettled ",
        ),
        (
            "camera: {source: 0, frames_per_s: 0.5}\n",
            ("source: 0", "source: a.avi"),
            "camera: frames_per_s 0.5 asks for a frame every 2 s, but after read_timeout_s 2 without one the camera ",
        ),
    ],
)
def test_times_that_can_never_be_kept_together_are_refused(
    tmp_path: Path, lines: str, possible: tuple[str, str], problem: str
) -> None:
    (found,) = problems_of(tmp_path, f"bundle: b\n{lines}")
    assert found.startswith(problem)
    load(written(tmp_path, f"bundle: b\n{lines.replace(*possible)}"))


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = "camera: {source: 0, loop: maybe}\nmqtt: {port: 0}\nmqtt: {prot: 1, port: 0}\nengine: {threads: -1}"
    assert problems_of(tmp_path, text) == (
        "mqtt: given twice, in line 2, column 1 and line 3, column 1",
        "bundle: missing; use a path, or for each zone its name (letters, digits, - and _) and a path",
        "camera.loop: 'maybe' is not allowed; use true or false",
        "mqtt.port: 0 is not allowed; use a whole number, 1 to 65535",
        "mqtt.prot: unknown key; did you mean 'port'?",
        "engine.threads: -1 is not allowed; use a whole number, 0 to 1024",
    )


def test_a_key_given_twice_is_refused_though_all_else_is_right(tmp_path: Path) -> None:
    text = "bundle: b\ncamera:\n  source: 0\n  source: 1\n"
    assert problems_of(tmp_path, text) == ("camera.source: given twice, in line 3, column 3 and line 4, column 3",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bundle: [a\ncamera: 1", "line 2, column 7: not YAML: "),
        ("bundle: !python/name:os.system x", "line 1, column 9: not YAML: could not determine a constructor"),
        ("bundle: 2024-13-45", "not a YAML value: month must be in 1..12"),
        ("bundle: \x07", "not YAML: unacceptable character #x0007"),
        ("- bundle", "the file: ['bundle'] is not allowed; use the keys bundle, state_dir, station, camera, "),
        ("", "bundle: missing; use a path, or for each zone its name (letters, digits, - and _) and a path"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    assert problems_of(tmp_path, text)[0].startswith(problem)


def _aliases(first: str, further: str) -> str:
    """Thirty lines in which each repeats the one before nine times."""
    return f"a0: &a0 {first}\n" + "".join(f"a{n + 1}: &a{n + 1} {{{further}: [{f'*a{n},' * 9}]}}\n" for n in range(30))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("camera: &a {b: *a}", "it has more than 2000 keys and values, counting what each alias repeats"),
        (_aliases("{k: v}", "k"), "it has more than 2000 keys and values, counting what each alias repeats"),
        (_aliases("{k: v}", "<<"), "it has more than 2000 keys and values, counting what each alias repeats"),
        ("bundle: " + "[" * 5000, "line 1, column 1065: not YAML: more than 2000 keys and values, or sections"),
        ("bundle: [" + "0," * 50_000 + "]", "line 1, column "),
        ("#" * 200_000, "it has more than 128 KiB"),
        ("station: {name: " + "x" * 70_000 + "}", "line 1, column 17: 70000 characters are too many; use at most 4096"),
        ('bundle: "\\ud800"', "line 1, column 9: a value has the character U+D800, which is not text; remove it"),
        ('bundle: "a\\0"', "line 1, column 9: a value has the character U+0000, which is not text; remove it"),
        ('station: {name: "\\e[2J"}', "line 1, column 17: a value has the character U+001B, which is not text"),
        ("archive: {max_mib: 99999999999999999999}", "line 1, column 20: a number of 20 digits is too large"),
        ("bundle: !!int ''", "not a YAML value: "),
        ("bundle: !!bool x", "not a YAML value: "),
        ("bundle: !!timestamp x", "not a YAML value: "),
    ],
)
def test_what_no_configuration_has_is_refused_at_once(tmp_path: Path, text: str, problem: str) -> None:
    begun_s = time.process_time()
    assert problems_of(tmp_path, text)[0].startswith(problem)
    assert time.process_time() - begun_s < 5.0


@pytest.mark.parametrize(
    ("value", "key"),
    [("x" * 300, "bundle"), ("x/" * 2047, "bundle"), ("~nobody-of-this-name/b", "bundle")],
)
def test_a_path_that_no_disk_takes_is_refused(tmp_path: Path, value: str, key: str) -> None:
    (problem,) = problems_of(tmp_path, f"{key}: {value}\ncamera: {{source: 0}}")
    assert problem.startswith("bundle: ")


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "a." * 130, "''"])
def test_a_name_that_no_host_has_is_refused(tmp_path: Path, host: str) -> None:
    (problem,) = problems_of(tmp_path, f"{MINIMAL}mqtt: {{host: {host}}}")
    assert problem.endswith("is not allowed; use the name or address of a host")


def test_anchors_within_reason_are_taken(tmp_path: Path) -> None:
    text = "bundle: b\ncamera: {source: 0, width: &side 640, height: *side}\nmqtt: {<<: {host: h}, port: 1}"
    loaded = load(written(tmp_path, text))
    assert (loaded.camera.width, loaded.camera.height, loaded.mqtt.host) == (640, 640, "h")


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="bundle: missing"):
        load(tmp_path / "pipe.yaml")


def test_a_device_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 128 KiB"):
        load(Path("/dev/zero"))


def test_a_missing_file_is_reported_with_its_absolute_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'none.yaml'}: No such file or directory")):
        load(tmp_path / "none.yaml")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"bundle: \xff")
    with pytest.raises(ConfigError, match="byte 8 is not UTF-8 text"):
        load(tmp_path / "binary.yaml")


def test_a_loaded_configuration_cannot_be_changed(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, MINIMAL))
    with pytest.raises(ValidationError):
        loaded.camera.source = 1


def test_the_network_leaves_a_core_to_the_rest_unless_configured_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in [(1, 1), (2, 1), (4, 3)]:
        monkeypatch.setattr("agent.config.services.usable_cores", lambda cores=cores: cores)
        assert EngineConfig().thread_count() == threads
    assert EngineConfig(threads=7).thread_count() == 7


def test_every_backend_can_be_named() -> None:
    assert get_args(EngineConfig.model_fields["backend"].annotation) == (AUTO, *BACKENDS)


def test_the_reference_has_a_row_for_every_key_and_says_what_it_means() -> None:
    rows = [row.strip("| ").split(" | ") for row in model.reference().splitlines()[2:]]
    assert all(len(row) == 4 and all(row) for row in rows)
    keys = {row[0].strip("`") for row in rows}
    assert len(keys) == len(rows)
    assert {"bundle", "camera.source", "mqtt.tls.key_file", "outbox.max_records"} <= keys
    assert {key.split(".")[0] for key in keys} == set(AgentConfig.model_fields)
    assert "None" not in model.reference()


def test_the_reference_shows_default_and_limits() -> None:
    lines = model.reference().splitlines()
    assert "| key | default | allowed | meaning |" in lines
    (port,) = (line for line in lines if line.startswith("| `mqtt.port`"))
    assert port.startswith("| `mqtt.port` | `1883` | a whole number, 1 to 65535 | ")
    (bundle,) = (line for line in lines if line.startswith("| `bundle`"))
    assert bundle.startswith(
        "| `bundle` | required | a path, or for each zone its name (letters, digits, - and _) and a path | "
    )
