"""The agent becomes a service: what is written, what is refused, what is left alone."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.config import model
from agent.config.model import AgentConfig, load
from agent.errors import ConfigError, InstallError
from agent.install.installer import Step, compare, inside
from agent.install.station_file import for_service
from agent.install.unit_files import UNIT, File, unit_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stations import Outcome

STATION = """\
# The press of line 2.
bundle: ../bundles/nut           # taught in May
camera: {source: /dev/shiftwatch/serial-17}
station:
  name: press2
mqtt:
  username: station
  password_file: ./password
"""
STATE_DIR = Path("/var/lib/shiftwatch/press2")
SHARED = {
    "etc/systemd/system/shiftwatch-agent@.service",
    "etc/systemd/system/shiftwatch-agents.target",
    "etc/udev/rules.d/70-shiftwatch-cameras.rules",
    "etc/sysusers.d/shiftwatch.conf",
    "etc/tmpfiles.d/shiftwatch.conf",
}


@pytest.fixture
def station(tmp_path: Path) -> Path:
    path = tmp_path / "plant" / "station.yaml"
    path.parent.mkdir()
    path.write_text(STATION)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "image"


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_install_writes_everything_that_systemd_needs(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    done = command("install", "--config", station, "--root", root)
    assert (done.code, done.err) == (0, "")
    assert files_in(root).keys() == SHARED | {"etc/shiftwatch/press2.yaml"}
    assert f"systemctl --root={root} enable shiftwatch-agents.target shiftwatch-agent@press2.service" in done.out
    assert (root / "var/lib/shiftwatch/press2").is_dir()
    assert (root / "var/lib/shiftwatch/press2").stat().st_mode & 0o777 == 0o750
    assert (root / "etc/shiftwatch/press2.yaml").stat().st_mode & 0o777 == 0o600, "a camera's password may be in it"
    assert (root / "etc/systemd/system" / UNIT).stat().st_mode & 0o777 == 0o644
    assert (root / "etc").stat().st_mode & 0o777 == 0o755


@pytest.mark.slow
def test_the_unit_starts_the_agent_of_this_environment(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    command("install", "--config", station, "--root", root)
    unit = (root / "etc/systemd/system" / UNIT).read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    program, *arguments = line.removeprefix("ExecStart=").split()
    assert arguments == ["run", "--config", "/etc/shiftwatch/%i.yaml"]
    helped = subprocess.run([program, "run", "--help"], capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    assert "--config" in helped.stdout


def test_a_path_with_characters_that_systemd_reads_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: '/opt/100% "new" venv')
    unit = unit_files()[0].content
    assert '\nExecStart="/opt/100%% \\"new\\" venv/shiftwatch-agent" run --config ' in unit


def test_the_configuration_means_the_same_in_its_new_place(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    command("install", "--config", station, "--root", root)
    installed = root / "etc/shiftwatch/press2.yaml"
    assert load(installed) == load(station).model_copy(update={"state_dir": STATE_DIR})
    text = installed.read_text()
    assert text.startswith("# The press of line 2.\nstate_dir: /var/lib/shiftwatch/press2\n")
    assert f'bundle: "{station.parents[1]}/bundles/nut"           # taught in May\n' in text
    assert "camera: {source: /dev/shiftwatch/serial-17}\n" in text


def test_a_second_install_changes_nothing(command: Callable[..., Outcome], station: Path, root: Path) -> None:
    command("install", "--config", station, "--root", root)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")}
    again = command("install", "--config", station, "--root", root)
    assert again.code == 0
    assert {line.split()[0] for line in again.out.splitlines()[:6]} == {"same"}
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")} == before
    installed = root / "etc/shiftwatch/press2.yaml"
    assert command("install", "--config", installed, "--root", root).code == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*")} == before


def test_a_dry_run_shows_everything_and_writes_nothing(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    shown = command("install", "--config", station, "--root", root, "--dry-run")
    assert shown.code == 0
    assert not root.exists()
    assert "+state_dir: /var/lib/shiftwatch/press2" in shown.out
    assert "+Type=notify" in shown.out
    assert shown.out.count("--- /dev/null") == 6


def test_an_edited_file_is_shown_and_only_overwritten_by_force(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    command("install", "--config", station, "--root", root)
    installed = root / "etc/shiftwatch/press2.yaml"
    installed.write_text(installed.read_text() + "log: {level: debug}\n")
    installed.chmod(0o640)
    before = files_in(root)
    command("install", "--config", station, "--root", root, "--name", "other")
    before |= {"etc/shiftwatch/other.yaml": files_in(root)["etc/shiftwatch/other.yaml"]}
    refused = command("install", "--config", station, "--root", root)
    assert refused.code == 2
    assert "-log: {level: debug}" in refused.out
    assert "already present with other content: /etc/shiftwatch/press2.yaml; nothing was written" in refused.err
    assert "--force" in refused.err
    assert files_in(root) == before
    looked = command("install", "--config", station, "--root", root, "--dry-run")
    assert (looked.code, "-log: {level: debug}" in looked.out) == (0, True)
    assert files_in(root) == before
    assert command("install", "--config", station, "--root", root, "--force").code == 0
    assert "debug" not in installed.read_text()
    assert installed.stat().st_mode & 0o777 == 0o640, "the rights that the agent's user was given stay"


def test_a_refused_install_writes_nothing_at_all(command: Callable[..., Outcome], station: Path, root: Path) -> None:
    (root / "etc/tmpfiles.d").mkdir(parents=True)
    (root / "etc/tmpfiles.d/shiftwatch.conf").write_bytes(b"\xffnot ours")
    assert command("install", "--config", station, "--root", root).code == 2
    assert files_in(root) == {"etc/tmpfiles.d/shiftwatch.conf": b"\xffnot ours"}


def test_uninstall_removes_what_was_installed_and_leaves_records_and_configuration(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    command("install", "--config", station, "--root", root)
    (root / "var/lib/shiftwatch/press2/outbox.sqlite").write_bytes(b"records")
    changed = root / "etc/tmpfiles.d/shiftwatch.conf"
    changed.write_text("changed")
    looked = command("uninstall", "--root", root, "--dry-run")
    assert looked.code == 0
    assert len(files_in(root)) == 7
    done = command("uninstall", "--root", root)
    assert done.code == 0
    assert "it was edited" in done.out
    kept = {"etc/shiftwatch/press2.yaml", "var/lib/shiftwatch/press2/outbox.sqlite"}
    assert files_in(root).keys() == kept | {"etc/tmpfiles.d/shiftwatch.conf"}
    assert command("uninstall", "--root", root, "--force").code == 0
    assert files_in(root).keys() == kept
    assert command("uninstall", "--root", root).code == 0


def test_uninstall_leaves_stations_that_systemd_starts(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    command("install", "--config", station, "--root", root)
    wants = root / "etc/systemd/system/shiftwatch-agents.target.wants"
    wants.mkdir()
    (wants / "shiftwatch-agent@press2.service").symlink_to("/etc/systemd/system/shiftwatch-agent@.service")
    refused = command("uninstall", "--root", root)
    assert refused.code == 2
    assert "systemctl disable --now shiftwatch-agents.target shiftwatch-agent@press2.service" in refused.err
    assert files_in(root).keys() >= SHARED


@pytest.mark.parametrize("name", ["press 2", "a/b", "../up", "-x", ".hidden", "a:b", "a%b", "ä", ""])
def test_a_name_with_a_meaning_for_systemd_is_refused(
    command: Callable[..., Outcome], station: Path, root: Path, name: str
) -> None:
    station.write_text(STATION.replace("press2", "'press: 2'"))
    refused = command("install", "--config", station, "--root", root, f"--name={name}")
    assert refused.code == 2
    assert "cannot be the name of a service" in refused.err
    assert not root.exists()


def test_only_root_installs_into_the_system(
    command: Callable[..., Outcome], station: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for arguments in (("install", "--config", station), ("uninstall",)):
        refused = command(*arguments)
        assert refused.code == 2
        assert "only root may install a service" in refused.err
        assert "--dry-run" in refused.err


def test_the_remaining_commands_are_printed(
    command: Callable[..., Outcome], station: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.install.installer.below", lambda _, path: Path("/nonexistent") / path.relative_to("/"))
    told = command("install", "--config", station, "--dry-run")
    assert told.code == 0
    left = [line.strip() for line in told.out.partition("Next, as root:")[2].strip().splitlines()]
    assert left == [
        "systemd-sysusers shiftwatch.conf",
        "systemd-tmpfiles --create shiftwatch.conf",
        "udevadm control --reload && udevadm trigger --subsystem-match=video4linux",
        "systemctl daemon-reload",
        "systemctl enable --now shiftwatch-agents.target shiftwatch-agent@press2.service",
    ]
    assert all(shlex.split(line) for line in left)


def test_an_unwritable_folder_is_reported(command: Callable[..., Outcome], station: Path, root: Path) -> None:
    root.mkdir()
    (root / "etc").write_text("a file")
    refused = command("install", "--config", station, "--root", root)
    assert refused.code == 2
    assert "Not a directory" in refused.err
    assert "as root (sudo)" in refused.err
    assert "Traceback" not in refused.err


def test_paths_that_the_service_cannot_see_are_reported(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    station.write_text(STATION.replace("../bundles/nut", "/home/ana/nut").replace("./password", "/etc/password"))
    done = command("install", "--config", station, "--root", root)
    assert done.code == 0
    warnings = [line for line in done.out.splitlines() if line.startswith("warning:")]
    unseen = [line for line in warnings if "the service cannot see home" in line]
    assert any(line.endswith(": bundle: /home/ana/nut") for line in unseen)
    assert not any("password" in line for line in unseen)
    assert "warning: does not exist yet: bundle: /home/ana/nut" in warnings


def test_another_state_folder_is_refused_with_a_remedy(
    command: Callable[..., Outcome], station: Path, root: Path
) -> None:
    station.write_text(f"state_dir: /mnt/ssd\n{STATION}")
    refused = command("install", "--config", station, "--root", root)
    assert refused.code == 2
    assert "state_dir: /mnt/ssd is not /var/lib/shiftwatch/press2" in refused.err
    assert "mount it at /var/lib/shiftwatch/press2" in refused.err
    station.write_text(f"state_dir: {STATE_DIR}\n{STATION}")
    assert command("install", "--config", station, "--root", root).code == 0


def rewritten(folder: Path, text: str) -> AgentConfig:
    """Loaded from elsewhere, as the service does."""
    station, elsewhere = folder / "here" / "a.yaml", folder / "elsewhere" / "a.yaml"
    for path in (station, elsewhere):
        path.parent.mkdir()
    station.write_text(text)
    elsewhere.write_text(for_service(station, STATE_DIR))
    assert load(elsewhere) == load(station).model_copy(update={"state_dir": STATE_DIR})
    return load(elsewhere)


@pytest.mark.parametrize(
    "text",
    [
        "bundle: 'it''s here'\ncamera:\n  source: ./clips\n",
        "camera:\n  source: 0\nbundle:\n  plain\n  over lines\n",
        'bundle: "b\\u00fc/c"  # "quoted"\ncamera: {source: "rtsp://me:secret@camera/1"}\n',
        "---\n# only a comment\n\nbundle: b\ncamera: {source: clip.mp4, loop: true}\n...\n",
        "bundle: ~/b\r\ncamera: {source: 0}\r\n",
        "camera: {source: 0}\nmqtt: {tls: {enabled: true, ca_file: ca.pem, cert_file: c, key_file: k}}\nbundle: 'ä#'\n",
        "camera: {source: v4l2src ! videoconvert ! appsink}\nbundle: >-\n  folded\n",
    ],
)
def test_paths_become_absolute_however_they_are_written(tmp_path: Path, text: str) -> None:
    assert rewritten(tmp_path, text).bundle[""].is_absolute()


@pytest.mark.parametrize(
    "text",
    ["{bundle: b, camera: {source: 0}}\n", "bundle: &a b\ncamera: {source: *a}\n", " bundle: b\n camera: {source: 0}"],
)
def test_yaml_that_cannot_be_rewritten_is_refused(tmp_path: Path, text: str) -> None:
    station = tmp_path / "a.yaml"
    station.write_text(text)
    with pytest.raises(ConfigError, match="cannot be made absolute") as refusal:
        for_service(station, STATE_DIR)
    assert "absolute paths" in refusal.value.remedy


def test_every_path_in_the_reference_is_made_absolute(tmp_path: Path) -> None:
    keys = {line.split("`")[1] for line in model.reference().splitlines() if "| a path" in line}
    everything = tmp_path / "a.yaml"
    everything.write_text(
        "bundle: b\ncamera: {source: clip}\ncommands: {token_file: t}\nweb: {token_file: w}\n"
        "trigger: {source: motion, empty: e}\n"
        "mqtt: {username: u, password_file: p, tls: {enabled: true, ca_file: a, cert_file: c, key_file: k}}\n"
    )
    named = model.named_paths(load(everything))
    assert named.keys() == (keys - {"state_dir"}) | {"camera.source"}


@pytest.mark.parametrize("link", ["etc", "etc/shiftwatch"])
def test_a_link_in_an_image_does_not_lead_out_of_it(tmp_path: Path, link: str) -> None:
    image, outside = tmp_path / "image", tmp_path / "outside"
    (image / link).parent.mkdir(parents=True)
    outside.mkdir()
    (image / link).symlink_to(outside)
    with pytest.raises(InstallError, match="leads out of"):
        compare([File(Path(f"/{link}/new"), "")], image)


def test_what_a_link_in_an_image_leads_to_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "image" / "a.yaml").symlink_to(tmp_path / "outside")
    with pytest.raises(InstallError, match="leads out of"):
        compare([File(Path("/a.yaml"), "")], tmp_path / "image")


def test_a_link_that_stays_in_the_image_is_followed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "var").symlink_to("data")
    assert inside(tmp_path, Path("/var/lib/a")) == tmp_path / "var/lib/a"


def test_a_step_knows_what_would_change(tmp_path: Path) -> None:
    file = File(Path("/etc/a"), "one\ntwo\n")
    assert Step(file, tmp_path, None).state == "new"
    assert Step(file, tmp_path, "one\ntwo\n").state == "same"
    different = Step(file, tmp_path, "one\n")
    assert different.state == "different"
    assert different.diff().splitlines() == ["--- /etc/a", "+++ /etc/a", "@@ -1 +1,2 @@", " one", "+two"]
