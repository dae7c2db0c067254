"""The password of the broker, from where it comes and where it never shows; and where engines are kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.config.model import load
from agent.errors import ConfigError
from agent.from_config import broker_settings, engine_deployment
from calibration.bundle.bundle import open_bundle
from calibration.progress import silent
from tests.support.stations import Agent, closed_port, good_parts, until, write_config, write_pictures

if TYPE_CHECKING:
    from tests.support.real_broker import Mosquitto

LOOPING = {"playback": "realtime", "frames_per_s": 10, "loop": True}
VERBOSE = "import sys; from agent.cli import main; sys.argv.append('--verbose'); main()"


def with_credential(folder: Path) -> Path:
    mqtt = {"username": "station", "password_credential": "mqtt-password"}
    return write_config(folder, folder / "bundle", 0, closed_port(), mqtt=mqtt)


def test_a_systemd_credential_is_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mqtt-password").write_text("pass word\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert broker_settings(load(with_credential(tmp_path))).password == "pass word"  # noqa: S105 - not one


def test_outside_systemd_there_are_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match=r"mqtt\.password_credential: there are none outside systemd; add Load"):
        broker_settings(load(with_credential(tmp_path)))


def test_a_credential_that_the_unit_does_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match=r"mqtt\.password_credential: cannot read .*mqtt-password"):
        broker_settings(load(with_credential(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
def test_the_password_is_in_no_log_and_no_list_of_processes(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path, *, is_right: bool
) -> None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = mosquitto.folder / "passwords"
    known = "hush-hush" if is_right else "another"
    subprocess.run([tool, "-c", "-b", passwords, "station", known], check=True, capture_output=True)  # noqa: S603 - fixed words
    passwords.chmod(0o600)
    mosquitto.start(f"password_file {passwords}", allow_anonymous=False)
    (tmp_path / "secret").write_text("hush-hush\n")
    mqtt = {"host": "127.0.0.1", "port": mosquitto.port, "username": "station", "password_file": "secret"}
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, mqtt=mqtt)
    with Agent(config, wrapper=VERBOSE) as agent:
        until(lambda: " connected to " in agent.log or "Not authorized" in agent.log)
        process = Path("/proc") / str(agent.process.pid)
        shown = [(process / name).read_bytes() for name in ("cmdline", "environ")]
        assert b"--config" in shown[0]
        assert all(b"hush" not in text for text in shown)
    assert (" connected to " in agent.log) == is_right
    assert "hush" not in agent.log


def test_engines_are_kept_beside_a_bundle_that_can_be_written_and_in_the_state_otherwise(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shutil.copytree(bundle, tmp_path / "bundles" / "washers")
    config = load(write_config(tmp_path, mine, 0, closed_port()))
    folder = engine_deployment(config, open_bundle(mine), silent).folder
    beside, state = mine.with_name("washers.tensorrt"), config.state_dir / "engines" / "washers.tensorrt"
    assert folder("tensorrt") == beside
    read_only: set[Path] = {mine.parent}
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) not in read_only)
    assert folder("tensorrt") == state
    beside.mkdir()
    assert folder("tensorrt") == beside
    read_only.add(beside)
    assert folder("tensorrt") == state

    shipped = mine.with_name("washers.tensorrt_rtx")
    read_only.add(shipped)
    assert folder("tensorrt_rtx") == config.state_dir / "engines" / shipped.name
    shipped.mkdir()
    assert folder("tensorrt_rtx") == shipped, "built ahead of time, it need not be written"
