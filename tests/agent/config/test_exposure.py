"""What a configuration leaves open is named, with the remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agent.config.exposure import exposures
from agent.config.model import load
from agent.config.secret_files import read_secret
from agent.doctor.station_probes import secrets_and_access
from agent.errors import ConfigError
from tests.support.stations import closed_port, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from pathlib import Path


def found_in(
    folder: Path, mode: int = 0o600, source: str = "0", sections: dict[str, dict[str, Any]] | None = None
) -> list[str]:
    folder.chmod(0o755)
    (folder / "secret").write_text("hush-hush")
    (folder / "secret").chmod(mode)
    file = write_config(folder, folder / "bundle", source, closed_port(), **(sections or {}))
    file.chmod(mode)
    return [f"{each.what}; {each.remedy}" for each in exposures(load(file), file)]


SECRETS: dict[str, dict[str, dict[str, Any]]] = {
    "mqtt.password_file": {"mqtt": {"username": "u", "password_file": "secret"}},
    "mqtt.tls.key_file": {"mqtt": {"tls": {"enabled": True, "cert_file": "cert", "key_file": "secret"}}},
    "commands.token_file": {"commands": {"token_file": "secret"}},
    "web.token_file": {"web": {"token_file": "secret"}},
}


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize(
    ("mode", "may"), [(0o644, "read"), (0o602, "write"), (0o620, "write"), (0o666, "read and write")]
)
def test_a_secret_that_others_may_read_or_write_is_named(tmp_path: Path, key: str, mode: int, may: str) -> None:
    (line,) = found_in(tmp_path, mode, sections=SECRETS[key])
    assert line == f"{key}: others may {may} {tmp_path / 'secret'}; chmod g-w,o-rwx {tmp_path / 'secret'}"


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
def test_a_secret_of_the_station_alone_is_in_order(tmp_path: Path, mode: int) -> None:
    assert found_in(tmp_path, mode, sections=SECRETS["commands.token_file"]) == []


def test_a_secret_that_others_may_replace_is_named(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    assert found_in(tmp_path, sections={"commands": {"token_file": "open/token"}}) == []  # reading it reports that
    (tmp_path / "open" / "token").write_text("hush-hush")
    (tmp_path / "open" / "token").chmod(0o600)
    (tmp_path / "open").chmod(0o777)
    (line,) = found_in(tmp_path, sections={"commands": {"token_file": "open/token"}})
    assert "others may replace" in line
    (tmp_path / "open").chmod(0o1777)
    assert found_in(tmp_path, sections={"commands": {"token_file": "open/token"}}) == []


def test_a_configuration_with_the_password_of_a_camera_is_a_secret(tmp_path: Path) -> None:
    assert found_in(tmp_path, 0o644, "rtsp://10.0.0.5/stream") == []
    (line,) = found_in(tmp_path, 0o644, "rtsp://user:hush@10.0.0.5/stream")
    assert f"others may read {tmp_path / 'station.yaml'}" in line
    assert "hush" not in line


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("10.0.0.5", True), ("::", True)],  # noqa: S104
)
def test_a_page_that_is_served_to_the_network_is_named(tmp_path: Path, host: str, *, is_open: bool) -> None:
    assert bool(found_in(tmp_path, sections={"web": {"enabled": True, "host": host}})) == is_open
    assert found_in(tmp_path, sections={"web": {"enabled": False, "host": host}}) == []


def test_the_doctor_warns(tmp_path: Path) -> None:
    found_in(tmp_path, 0o644, sections=SECRETS["commands.token_file"])
    (finding,) = secrets_and_access(str(tmp_path / "station.yaml"))
    assert (finding.level, finding.name) == ("warning", "secrets")
    found_in(tmp_path, 0o600, sections=SECRETS["commands.token_file"])
    (finding,) = secrets_and_access(str(tmp_path / "station.yaml"))
    assert finding.level == "ok"


@pytest.mark.slow
def test_the_log_warns_at_the_start(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush-hush")
    (tmp_path / "token").chmod(0o644)
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    sections: dict[str, dict[str, Any]] = {"commands": {"token_file": "token"}, "log": {"format": "json"}}
    config = write_config(tmp_path, bundle, parts, closed_port(), **sections)
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "agent", "run", "--config", config], capture_output=True, text=True, check=True
    )
    first = json.loads(ended.stderr.splitlines()[0])
    assert first["level"] == "warning"
    assert first["message"].startswith("commands.token_file: others may read")


@pytest.mark.parametrize(
    "content",
    [
        b"p\xc3\xa4ss word",
        b"p\xc3\xa4ss word\n",
        b"\xef\xbb\xbfp\xc3\xa4ss word\r\n",
        "\ufeffp\xe4ss word\r\n".encode("utf-16-le"),
        "\ufeffp\xe4ss word\n\n".encode("utf-16-be"),
    ],
)
def test_byte_order_mark_and_line_ends_are_no_part_of_a_secret(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert read_secret(tmp_path / "secret", "key") == "p\xe4ss word"


def test_a_secret_that_is_not_text_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"hush\xe4")
    with pytest.raises(ConfigError, match=r"key: cannot read .* not text in UTF-8") as caught:
        read_secret(tmp_path / "secret", "key")
    assert "hush" not in str(caught.value)
    assert "e4" not in str(caught.value).replace(str(tmp_path), "")
