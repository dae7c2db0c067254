"""A set-up begins at the configuration that there is, or where the one before was left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from agent.errors import SetupError
from agent.setup.continued import continued
from agent.setup.station_files import read_values
from tests.support.set_up import configure, order_for
from tests.support.washers import washer

if TYPE_CHECKING:
    from pathlib import Path

    from agent.setup.draft import Drafts


def drafts(home: Path, **first: Any) -> Drafts:  # noqa: ANN401 - keys of a draft
    order = order_for(home, first)
    return continued(home / "draft.yaml", order, read_values(home / "station.yaml"), home / "empty.png")


def written_later(path: Path, than: Path) -> None:
    later_ns = than.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later_ns, later_ns))


def test_a_first_set_up_begins_with_the_configuration(tmp_path: Path) -> None:
    configure(tmp_path, camera={"source": 3, "format": "MJPG"}, mqtt={"host": "10.0.0.5"}, station=None)
    draft = drafts(tmp_path).draft
    assert draft.camera is not None
    assert (draft.camera.source, draft.camera.format, draft.mqtt.host) == (3, "MJPG", "10.0.0.5")
    assert drafts(tmp_path, camera={"source": 5}).values["camera"] == {"source": 5}


def test_an_interrupted_set_up_goes_before_the_older_configuration(tmp_path: Path) -> None:
    configure(tmp_path, mqtt={"host": "old"})
    drafts(tmp_path).change(mqtt={"host": "new"}, taught=2)
    written_later(tmp_path / "draft.yaml", than=tmp_path / "station.yaml")
    assert drafts(tmp_path).draft.mqtt.host == "new"


def test_a_configuration_that_was_edited_after_the_set_up_is_not_undone(tmp_path: Path) -> None:
    drafts(tmp_path, camera={"source": 1}).change(
        mqtt={"host": "old"}, station={"line": "7"}, zones=[{"region": [1, 2, 3, 4]}], taught=2
    )
    configure(tmp_path, camera={"source": 1}, mqtt={"host": "edited"})
    written_later(tmp_path / "station.yaml", than=tmp_path / "draft.yaml")
    draft = drafts(tmp_path).draft
    assert (draft.mqtt.host, draft.station.line) == ("edited", "line")
    assert (draft.taught, draft.zones[0].region) == (2, [1, 2, 3, 4])


def test_a_camera_that_the_command_names_is_used_in_any_case(tmp_path: Path) -> None:
    drafts(tmp_path).change(camera={"source": 1, "width": 640, "height": 480})
    assert drafts(tmp_path, camera={"source": 1}).values["camera"] == {"source": 1, "width": 640, "height": 480}
    assert drafts(tmp_path, camera={"source": 2}).values["camera"] == {"source": 2}
    assert drafts(tmp_path).values["camera"] == {"source": 2}


def test_the_configured_image_of_the_empty_place_becomes_that_of_the_set_up(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "bare.jpg"), washer(1))
    configure(tmp_path, trigger={"source": "motion", "empty": "bare.jpg"})
    assert drafts(tmp_path).values["trigger"] == {"source": "motion"}
    assert (tmp_path / "empty.png").read_bytes() == (tmp_path / "bare.jpg").read_bytes()
    (tmp_path / "empty.png").write_bytes(b"of the set-up")
    drafts(tmp_path)
    assert (tmp_path / "empty.png").read_bytes() == b"of the set-up"


def test_an_image_of_the_empty_place_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    configure(tmp_path, trigger={"source": "motion", "empty": "gone.png"})
    assert drafts(tmp_path).values["trigger"] == {"source": "motion"}
    assert not (tmp_path / "empty.png").exists()


def test_a_camera_that_cannot_be_one_is_refused_without_blaming_a_file(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"this cannot be used: camera\.source: '-1' is not allowed"):
        drafts(tmp_path, camera={"source": "-1"})
