"""``shiftwatch-agent install`` and ``uninstall``: run the agent as a systemd service."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.camera.shown_source import without_passwords
from agent.config import model as configuration
from agent.config.option import CONFIGURATIONS
from agent.errors import InstallError
from agent.install.installer import (
    check_name,
    compare,
    enabled_stations,
    inside,
    refuse_to_overwrite,
    remove,
    unit_warnings,
    write,
)
from agent.install.station_file import for_service, unseen_paths
from agent.install.unit_files import STATES, TARGET, UNITS, File, unit_files
from calibration.terminal import console, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.install.installer import Step

app = typer.Typer()
Root = Annotated[Path, typer.Option(metavar="DIR", help="Install below this folder instead of `/`, for a disk image.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, but change nothing.")]
_SLASH = Path("/")


@app.command("install")
def install_command(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE.yaml", help="Configuration of the station.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the service; default: `station.name`.")] = None,
    root: Root = _SLASH,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files that are different.")] = False,
) -> None:
    """Install a station as a service that systemd starts at boot, watches and restarts.

    Writes the units, a udev rule for stable camera names, the user and permissions, and the configuration in
    `/etc/shiftwatch`. Starts nothing, but prints the commands that do. Running it again changes nothing.

    Example: `sudo .venv/bin/shiftwatch-agent install --config station.yaml`
    """
    loaded = configuration.load(config)
    name = name or loaded.station.name
    check_name(name)
    _check_root(root, dry_run=dry_run)
    state_dir = STATES / name
    station = File(CONFIGURATIONS / f"{name}.yaml", for_service(config, state_dir), 0o600)
    steps, folder = compare([*unit_files(), station], root), inside(root, state_dir)
    for step in steps:
        console.print(f"{step.state:<11}{escape(str(step.target))}", soft_wrap=True)
        if step.state == "different" or (dry_run and step.state == "new"):
            console.print(without_passwords(step.diff()), markup=False, soft_wrap=True)
    if not force and not dry_run:
        refuse_to_overwrite(steps)
    if not dry_run:
        write(steps, [folder])
    for warning in _warnings(loaded, steps, dry_run=dry_run):
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    _print_next_steps(name, root, restart=any(step.state == "different" for step in steps))


@app.command("uninstall")
def uninstall_command(
    *,
    root: Root = _SLASH,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Also remove files that were edited.")] = False,
) -> None:
    """Remove what `install` wrote for all stations. Configurations, records and pictures stay.

    Example: `sudo .venv/bin/shiftwatch-agent uninstall`
    """
    _check_root(root, dry_run=dry_run)
    enabled = enabled_stations(root)
    if enabled:
        raise InstallError(
            what=f"still enabled: {', '.join(enabled)}",
            remedy=f"systemctl disable --now {TARGET} {' '.join(enabled)}",
        )
    steps = [step for step in compare(unit_files(), root) if step.state != "new"]
    ours = [step for step in steps if force or step.state == "same"]
    for step in steps:
        action, why = ("removed", "") if step in ours else ("left", ": it was edited; --force removes it")
        console.print(f"{action:<11}{escape(str(step.target))}{why}", soft_wrap=True)
    if not dry_run:
        remove(ours)
    console.print(
        f"kept: {CONFIGURATIONS}, {STATES}, the user shiftwatch. Next: systemctl daemon-reload", soft_wrap=True
    )


def _check_root(root: Path, *, dry_run: bool) -> None:
    if root == _SLASH and not dry_run and os.geteuid() != 0:
        raise InstallError(
            what="only root may install a service", remedy="use sudo; to see the changes first, add --dry-run"
        )


def _warnings(config: configuration.AgentConfig, steps: Sequence[Step], *, dry_run: bool) -> Iterator[str]:
    programs = {"the agent": Path(sysconfig.get_path("scripts")), "its Python": Path(sys.base_prefix)}
    for unseen in unseen_paths(config, programs):
        yield f"the service cannot see home and temporary folders; move it to /opt or /srv: {unseen}"
    for missing in configuration.missing_files(config):
        yield f"does not exist yet: {missing}"
    if not dry_run:
        yield from unit_warnings([step.target for step in steps if step.file.path.parent == UNITS])


def _print_next_steps(name: str, root: Path, *, restart: bool) -> None:
    service = f"shiftwatch-agent@{name}.service"
    if root != _SLASH:
        console.print(f"Next, for the image:\n  systemctl --root={root} enable {TARGET} {service}", soft_wrap=True)
        return
    commands = [
        "systemd-sysusers shiftwatch.conf",
        "systemd-tmpfiles --create shiftwatch.conf",
        "udevadm control --reload && udevadm trigger --subsystem-match=video4linux",
        "systemctl daemon-reload",
        f"systemctl enable --now {TARGET} {service}",
        *([f"systemctl restart {service}"] if restart else []),
    ]
    console.print("\n  ".join(["Next, as root:", *commands]), soft_wrap=True)
