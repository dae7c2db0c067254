"""``shiftwatch-agent install`` and ``uninstall``: the agent as a service of this device."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.config import model as configuration
from agent.errors import InstallError
from agent.install.installer import (
    below,
    check_name,
    compare,
    doubts,
    enabled_stations,
    refuse_to_overwrite,
    remove,
    write,
)
from agent.install.station_file import for_service, unseen_paths
from agent.install.unit_files import CONFIGURATIONS, STATES, TARGET, UNITS, File, unit_files
from calibration.terminal import console, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.install.installer import Step

app = typer.Typer()
Root = Annotated[Path, typer.Option(metavar="DIR", help="Folder that stands for `/`, as that of an image.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be.")]
_SLASH = Path("/")


@app.command("install")
def install_command(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE.yaml", help="Configuration of the station.")],
    *,
    name: Annotated[str | None, typer.Option(help="Of the service; else `station.name`.")] = None,
    root: Root = _SLASH,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there and different.")] = False,
) -> None:
    """Make a station a service that systemd starts with the device, watches, and starts again.

    Writes the units, a udev rule for stable names of cameras, user and permissions, and the configuration to
    `/etc/shiftwatch`; starts nothing, but says how. Done again it changes nothing.

    Example: `sudo .venv/bin/shiftwatch-agent install --config station.yaml`
    """
    loaded = configuration.load(config)
    name = name or loaded.station.name
    check_name(name)
    _need_root(root, dry_run=dry_run)
    state_dir = STATES / name
    station = File(CONFIGURATIONS / f"{name}.yaml", for_service(config, state_dir), 0o600)
    steps = compare([*unit_files(), station], root)
    for step in steps:
        console.print(f"{step.state:<11}{escape(str(step.place))}", soft_wrap=True)
        if step.state == "different" or (dry_run and step.state == "new"):
            console.print(step.diff(), markup=False, soft_wrap=True)
    if not force and not dry_run:
        refuse_to_overwrite(steps)
    if not dry_run:
        write(steps, [below(root, state_dir)])
    for warning in _warnings(loaded, steps, dry_run=dry_run):
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    _print_what_is_left(name, root, restart=any(step.state == "different" for step in steps))


@app.command("uninstall")
def uninstall_command(
    *,
    root: Root = _SLASH,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Remove what somebody has changed, too.")] = False,
) -> None:
    """Remove what `install` wrote for all stations; configurations, records and pictures stay.

    Example: `sudo .venv/bin/shiftwatch-agent uninstall`
    """
    _need_root(root, dry_run=dry_run)
    enabled = enabled_stations(root)
    if enabled:
        raise InstallError(
            what=f"still started with the device: {', '.join(enabled)}",
            remedy=f"systemctl disable --now {TARGET} {' '.join(enabled)}",
        )
    steps = [step for step in compare(unit_files(), root) if step.state != "new"]
    ours = [step for step in steps if force or step.state == "same"]
    for step in steps:
        does = "removed" if step in ours else "left"
        why = "" if step in ours else ": somebody has changed it; --force removes it"
        console.print(f"{does:<11}{escape(str(step.place))}{why}", soft_wrap=True)
    if not dry_run:
        remove(ours)
    console.print(
        f"kept: {CONFIGURATIONS}, {STATES}, the user shiftwatch. Now: systemctl daemon-reload", soft_wrap=True
    )


def _need_root(root: Path, *, dry_run: bool) -> None:
    if root == _SLASH and not dry_run and os.geteuid() != 0:
        raise InstallError(
            what="only root may install a service", remedy="use sudo, or look first: the same command with --dry-run"
        )


def _warnings(config: configuration.AgentConfig, steps: Sequence[Step], *, dry_run: bool) -> Iterator[str]:
    programs = {"the agent": Path(sysconfig.get_path("scripts")), "its Python": Path(sys.base_prefix)}
    for unseen in unseen_paths(config, programs):
        yield f"the service sees no homes and no temporary files; move it to /opt or /srv: {unseen}"
    for missing in configuration.missing_files(config):
        yield f"not there yet: {missing}"
    if not dry_run:
        yield from doubts([step.place for step in steps if step.file.path.parent == UNITS])


def _print_what_is_left(name: str, root: Path, *, restart: bool) -> None:
    service = f"shiftwatch-agent@{name}.service"
    if root != _SLASH:
        console.print(f"Then, in the image:\n  systemctl --root={root} enable {TARGET} {service}", soft_wrap=True)
        return
    commands = [
        "systemd-sysusers shiftwatch.conf",
        "systemd-tmpfiles --create shiftwatch.conf",
        "udevadm control --reload && udevadm trigger --subsystem-match=video4linux",
        "systemctl daemon-reload",
        f"systemctl enable --now {TARGET} {service}",
        *([f"systemctl restart {service}"] if restart else []),
    ]
    console.print("\n  ".join(["Then, as root:", *commands]), soft_wrap=True)
