"""The configuration that is used where none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import option
from agent.config.option import only_station, station_if_only
from calibration.errors import SettingError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands for /etc/shiftwatch; the present folder is another."""
    folder, here = tmp_path / "etc", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setattr(option, "CONFIGURATIONS", folder)
    monkeypatch.chdir(here)
    return folder


def test_without_any_station_the_error_says_how_to_begin(installed: Path) -> None:
    assert installed.is_dir()
    with pytest.raises(SettingError, match="there is no station here") as raised:
        only_station()
    assert "shiftwatch-agent setup" in raised.value.remedy
    assert station_if_only() is None


def test_the_file_in_this_folder_is_the_station(installed: Path) -> None:
    Path("station.yaml").touch()
    Path("another.yaml").touch()
    assert only_station() == station_if_only() == Path("station.yaml")
    assert installed.is_dir()


def test_the_only_installed_station_is_found_from_anywhere(installed: Path) -> None:
    (installed / "line2.yaml").touch()
    assert only_station() == station_if_only() == installed / "line2.yaml"


def test_of_several_stations_one_must_be_named(installed: Path) -> None:
    (installed / "line2.yaml").touch()
    Path("station.yaml").touch()
    with pytest.raises(SettingError, match=r"several stations here: station\.yaml, .*line2\.yaml"):
        only_station()
    assert station_if_only() is None


def test_in_the_folder_of_the_installed_ones_a_station_is_not_counted_twice(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (installed / "station.yaml").touch()
    monkeypatch.chdir(installed)
    assert only_station() == installed / "station.yaml"
