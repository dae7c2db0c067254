from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from calibration.errors import install_extra, install_newest

KEPT, COPIED = "pip install --editable '.[web]' in the project's folder", "pip install '.[web]' in the project's folder"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({"url": "file:///srv/clone", "dir_info": {"editable": True}}, KEPT),
        ({"url": "file:///srv/clone", "dir_info": {}}, COPIED),
        ({"url": "file:///srv/shiftwatch.whl", "archive_info": {}}, COPIED),
        (None, COPIED),
    ],
)
def test_an_extra_is_added_as_the_project_was_installed(
    origin: object, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(name: str) -> str | None:
        assert name == "direct_url.json"
        return None if origin is None else json.dumps(origin)

    monkeypatch.setattr("calibration.errors.distribution", lambda _: SimpleNamespace(read_text=read_text))
    assert install_extra("web") == command
    assert install_newest() == "git pull and " + command.replace("'.[web]'", ".")


def test_a_project_that_is_not_installed_is_used_from_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("calibration.errors.distribution", absent)
    assert install_extra("web") == KEPT


PROJECT = Path(__file__).resolve().parents[2]


def test_no_message_names_an_extra_by_other_words() -> None:
    files = [path for top in ("agent", "calibration") for path in (PROJECT / top).rglob("*.py")]
    named = [path.name for path in files if "'.[" in path.read_text()]
    assert named == ["errors.py"]
