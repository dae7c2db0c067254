"""What a set-up leaves behind is whole, private where it is secret, and overwrites nothing."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agent.config.model import load
from agent.errors import ConfigError, SetupError
from agent.setup.station_files import (
    checked,
    deploying,
    read_values,
    relative,
    station_values,
    write_secret,
    write_station,
)
from calibration.bundle.bundle import open_bundle
from calibration.errors import BundleError
from tests.support.set_up import everything_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DECIDED = {"camera": {"source": 0}, "station": {"name": "press 2"}, "trigger": {"source": "motion"}}


@contextmanager
def failing() -> Iterator[None]:
    with pytest.raises(ZeroDivisionError):
        yield


def test_a_bundle_stands_in_its_place_at_the_end_of_the_block_and_not_before(bundle: Path, tmp_path: Path) -> None:
    with deploying({"": bundle}, tmp_path) as places:
        assert places == {"": tmp_path / "bundle"}
        assert not places[""].exists()
    assert open_bundle(places[""]).identity == open_bundle(bundle).identity
    assert list(tmp_path.iterdir()) == [places[""]]


def test_nothing_is_left_behind_where_the_block_fails(bundle: Path, tmp_path: Path) -> None:
    with failing(), deploying({"a": bundle, "b": bundle}, tmp_path):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_is_not_whole_is_not_used(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copytree = shutil.copytree

    def torn(source: Path, target: Path) -> None:
        copytree(source, target)
        (target / "network.onnx").write_bytes(b"half")

    monkeypatch.setattr(shutil, "copytree", torn)
    with pytest.raises(BundleError, match=r"network\.onnx"), deploying({"": bundle}, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_an_error_in_words(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, target: Path) -> None:
        target.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(SetupError, match=f"cannot write {tmp_path}: No space left on device\n  fix the perm"):  # noqa: SIM117 - the inner one raises
        with deploying({"": bundle}, tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_power_cut_left_of_a_copy_is_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / ".bundle.part").mkdir()
    (tmp_path / ".bundle.part" / "network.onnx").write_text("half")
    with deploying({"": bundle}, tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("what", ["file", "folder", "link", "other bundle"])
def test_what_is_there_already_stays_and_the_bundle_gets_a_number(bundle: Path, tmp_path: Path, what: str) -> None:
    place = tmp_path / "bundle"
    if what == "file":
        place.write_text("mine")
    elif what == "folder":
        place.mkdir()
        (place / "photo.png").write_text("mine")
    elif what == "link":
        place.symlink_to("nowhere")
    else:
        shutil.copytree(bundle, place)
        (place / "manifest.json").write_text("{}")
    before = everything_in(tmp_path)
    for _ in range(2):  # a second time the first copy is found again
        with deploying({"": bundle}, tmp_path) as places:
            pass
        assert places == {"": tmp_path / "bundle-2"}
    open_bundle(places[""])
    assert {name: content for name, content in everything_in(tmp_path).items() if "bundle-2/" not in name} == before


def test_a_bundle_that_is_in_its_place_already_stays_there(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    with deploying({"": bundle}, tmp_path) as places:
        pass
    assert places == {"": tmp_path / "bundle"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_zones_get_a_place_each_even_where_their_names_meet(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "lid").mkdir()
    with deploying({"lid": bundle, "lid-2": bundle, "setup": bundle}, tmp_path) as places:
        pass
    assert places["lid"] != places["lid-2"]
    assert all(open_bundle(path) for path in places.values())


def test_the_configuration_before_is_kept_next_to_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "station.yaml"
    values = {"bundle": "./bundle", "camera": {"source": 0}}
    assert write_station(file, values) is None
    for number, name in enumerate(("station-before.yaml", "station-before-2.yaml")):
        before = file.read_bytes()
        kept = write_station(file, {**values, "camera": {"source": number + 1}})
        assert kept == tmp_path / name
        assert kept.read_bytes() == before
    assert load(file).camera.source == 2


def test_what_is_written_is_private(tmp_path: Path) -> None:
    write_station(tmp_path / "station.yaml", {"bundle": "b", "camera": {"source": "rtsp://user:secret@camera"}})
    write_secret(tmp_path / "mqtt-password", "secret")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    (tmp_path / "mqtt-password").chmod(0o644)
    write_secret(tmp_path / "mqtt-password", "other")
    assert (tmp_path / "mqtt-password").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "mqtt-password").read_text() == "other\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SetupError, match=r"cannot write .*nowhere/web-token: No such file or directory\n  fix the perm"
    ):
        write_secret(tmp_path / "nowhere" / "web-token", "x")
    with pytest.raises(SetupError, match=r"cannot write .*nowhere/station\.yaml: No such file or directory"):
        write_station(tmp_path / "nowhere" / "station.yaml", {})


def test_paths_below_the_folder_are_relative_and_others_stay(tmp_path: Path) -> None:
    values = {
        "bundle": {"a": f"{tmp_path}/a", "b": "/opt/b"},
        "camera": {"source": f"{tmp_path}2/belt.avi"},
        "mqtt": {"tls": {"ca_file": f"{tmp_path}/tls/ca.pem"}, "port": 1883},
    }
    assert relative(values, tmp_path) == {
        "bundle": {"a": "./a", "b": "/opt/b"},
        "camera": {"source": f"{tmp_path}2/belt.avi"},
        "mqtt": {"tls": {"ca_file": "./tls/ca.pem"}, "port": 1883},
    }


def test_other_keys_of_the_configuration_before_stay_but_for_the_threshold_of_the_other_bundle(tmp_path: Path) -> None:
    before = {
        "bundle": "./old",
        "state_dir": "/var/lib/station",
        "camera": {"source": 3},
        "decision": {"threshold": 1e6, "raise_after": 2},
        "plc": {"deadline_ms": 50},
        "archive": None,
    }
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in before.items()}
    values = station_values(DECIDED, before, {"": tmp_path / "bundle"}, tmp_path / "empty.png")
    assert values["bundle"] == str(tmp_path / "bundle")
    assert values["decision"] == {"raise_after": 2}
    assert values["trigger"] == {"source": "motion", "empty": str(tmp_path / "empty.png")}
    assert (values["state_dir"], values["plc"], values["camera"]) == (
        "/var/lib/station",
        {"deadline_ms": 50},
        {"source": 0},
    )
    assert before == copy
    checked(values, tmp_path)
    station_values({}, {"trigger": DECIDED["trigger"]}, {"": tmp_path / "bundle"}, tmp_path / "empty.png")
    assert DECIDED["trigger"] == {"source": "motion"}


def test_zones_become_bundles_and_the_empty_place_counts_only_with_motion(tmp_path: Path) -> None:
    bundles = {"left": tmp_path / "l", "right": tmp_path / "r"}
    values = station_values({**DECIDED, "trigger": {"source": "command"}}, {}, bundles, tmp_path / "empty.png")
    assert values["bundle"] == {"left": str(tmp_path / "l"), "right": str(tmp_path / "r")}
    assert values["trigger"] == {"source": "command"}
    assert checked(values, tmp_path).bundle == bundles


def test_values_that_make_no_configuration_are_refused(tmp_path: Path) -> None:
    values: dict[str, Any] = {"bundle": "b", "camera": {"source": 0}, "plc": {"deadline_ms": 50}}
    with pytest.raises(ConfigError, match="the station cannot be configured like this"):
        checked({**values, "trigger": {"source": "command", "delay_ms": 80}}, tmp_path)
    with pytest.raises(ConfigError, match=r"U\+0007"):
        checked({**values, "station": {"name": "\x07"}}, tmp_path)


def test_a_configuration_is_read_as_the_station_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "station.yaml"
    assert read_values(file) == {}
    file.write_text("camera: {source: 0, frames_per_s: 1e1}\nmqtt:\n")
    assert read_values(file) == {"camera": {"source": 0, "frames_per_s": 10.0}, "mqtt": None}
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"station\.yaml cannot be used"):
        read_values(file)
