"""How the address of a camera is shown: never with what may be secret."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.camera.shown_source import without_password, without_passwords
from agent.config.model import load, missing_files
from agent.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "SECRETPW"  # noqa: S105 - not one
_UNQUOTED = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda text: "***" not in text)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("0", "0"),
        ("/dev/video0", "/dev/video0"),
        ("videos/a b.avi", "videos/a b.avi"),
        ("/srv/a:b/c.avi", "/srv/a:b/c.avi"),
        ("rtsp://10.0.0.5:554/live/ch0", "rtsp://10.0.0.5:554/live/ch0"),
        ("rtsp://user:p@ss@host/x", "rtsp://***@host/x"),
        ("rtsp://host/x@y", "rtsp://host/x@y"),
        ("rtsp://10.0.0.5:554/profile@1/media?x=1", "rtsp://10.0.0.5:554/profile@1/media?***"),
        ("rtsp://admin:Ge/heim@10.0.0.5/s", "rtsp://***@10.0.0.5/s"),
        ("rtsp://admin:12?34@10.0.0.5/s", "rtsp://***"),
        ("http://cam/mjpg?token=x@y", "http://cam/mjpg?***"),
        ("http://cam/mjpg#token", "http://cam/mjpg#***"),
        ("rtsp://10.0.0.5/user=admin&password=x&channel=1", "rtsp://10.0.0.5/user=***"),
        ("rtsp://a:b@[fe80::1]:554/s", "rtsp://***@[fe80::1]:554/s"),
        ("admin:x@10.0.0.5/s", "***@10.0.0.5/s"),
        ("10.0.0.5/cgi?usr=admin&pwd=x", "10.0.0.5/cgi?***"),
        (
            "rtspsrc location=rtsp://u:p@h user-pw=secret ! appsink",
            "rtspsrc location=rtsp://***@h user-pw=*** ! appsink",
        ),
        (
            "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=640 ! queue max-size-buffers=1 ! appsink",
            "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM)*** ! queue max-size-buffers=1 ! appsink",
        ),
    ],
)
def test_an_address_is_shown_without_secrets(written: str, shown: str) -> None:
    assert without_password(written) == shown


@pytest.mark.parametrize(
    "written",
    [
        "http://127.0.0.1/snap?loginuse=admin&loginpas={}",
        "rtsp://127.0.0.1/user=admin_password=a&passwd={}",
        "http://127.0.0.1/a%3Fpwd%3D{}",
        "http://127.0.0.1/a;session={}",
        "http://admin:{}/x@127.0.0.1:9/v.mjpg",
        "http://h/x?user=a&pwd=x@{}",
        "rtsp://{}@h/x",
        "rtsp:/a:{}@h/x",
        "rtsp://a:x ! {} ! y@h/x",
        "http://h;pw={}/x",
        'rtspsrc location=rtsp://x/ user-id=a user-pw="my {}" ! appsink',
        "rtspsrc location=rtsp://x/ user-pw = 'a ! {} ! b' ! appsink",
        "rtspsrc location=rtsp://x/ user-pw=my {} ! appsink",
        "rtspsrc location=rtsp://x/ user-pw='{} ! appsink",
        'souphttpsrc location=http://x/ extra-headers="h,Authorization=Basic {}" ! appsink',
        "srtsrc uri=srt://h:1?passphrase={} ! appsink",
    ],
)
def test_a_secret_is_never_shown(written: str) -> None:
    assert SECRET not in without_password(written.format(SECRET))


@given(user=_UNQUOTED, before=_UNQUOTED, after=_UNQUOTED)
def test_no_password_before_the_host_is_shown_whatever_else_it_contains(user: str, before: str, after: str) -> None:
    assert SECRET not in without_password(f"rtsp://{user}:{before}{SECRET}{after}@10.0.0.5/stream")


@pytest.mark.parametrize(
    "text",
    [
        "bundle: b\ncamera: rtsp://SECRETPW@h/x\n",
        "bundle: b\ncamera: {source: ['rtsp://SECRETPW@h/x']}\n",
        "bundle: b\ncamera: {source: {password: SECRETPW}}\n",
        "bundle: b\ncamera: {source: '-rtsp://a:SECRETPW@h/x'}\n",
    ],
)
def test_an_error_in_the_configuration_shows_no_password(tmp_path: Path, text: str) -> None:
    (tmp_path / "station.yaml").write_text(text)
    with pytest.raises(ConfigError, match="is not allowed") as caught:
        load(tmp_path / "station.yaml")
    assert SECRET not in str(caught.value)


def test_what_opencv_and_ffmpeg_print_about_a_stream_is_not_shown() -> None:
    code = "from agent.camera.sources import source_from; source_from('rtsp://a:SECRETPW@127.0.0.1:9/x').open()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert "stream rtsp://***@127.0.0.1:9/x does not open" in ended.stderr
    assert "[tcp @" not in ended.stderr
    assert SECRET not in ended.stderr.replace(code, "")


def test_every_address_in_a_text_is_shown_without_secrets() -> None:
    text = "-  source: rtsp://a:SECRETPW@h/x\n+  source: 'http://h/x?pwd=SECRETPW'"
    assert without_passwords(text) == "-  source: rtsp://***@h/x\n+  source: 'http://h/x?***"


def test_an_address_without_its_scheme_is_shown_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "station.yaml").write_text("bundle: b\ncamera: {source: 'admin:SECRETPW@10.0.0.5/live'}\n")
    (_, missing) = missing_files(load(tmp_path / "station.yaml"))
    assert missing == f"camera.source: {tmp_path}/***@10.0.0.5/live"
