"""``shiftwatch-agent``: the command line of a station."""

from __future__ import annotations

import faulthandler
import logging
import signal
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import logs
from agent.archive import cli as archive_command
from agent.audit import cli as audit_command
from agent.capture import cli as capture_command
from agent.commands import cli as command_command
from agent.commands.mark_cli import mark_command
from agent.config import model as configuration
from agent.config.exposure import exposures
from agent.config.option import ConfigFile, station_if_only
from agent.config.station_text import station_text, with_values
from agent.doctor import report as doctor_report
from agent.from_config import archive_folder, station_topics
from agent.install import cli as install_command
from agent.messages.payloads import NO_LOSS
from agent.messages.records import Evaluation
from agent.recalibration import cli as recalibrate_command
from agent.setup.before_running import new_order, set_up_station, wait_until_taught
from agent.setup.session import address
from agent.state_owner import become, name_of, owner_of
from agent.station.run import Stop, Summary, run_station
from agent.statistics import cli as stats_command
from agent.watch import cli as watch_command
from calibration.errors import ShiftwatchError
from calibration.plain_text import counted
from calibration.terminal import EXIT_ERROR, console, ending_signals, escape, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.model import AgentConfig
    from agent.doctor.finding import Finding
    from agent.setup.order import SetupOrder

log = logging.getLogger(__name__)


def _print_version(is_given: bool) -> None:  # noqa: FBT001 - typer calls it like this
    if is_given:
        console.print(f"shiftwatch {version('shiftwatch')}")
        raise typer.Exit


app = typer.Typer(
    help="Watch a camera with a calibrated network and publish the results over MQTT.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(capture_command.app)
app.add_typer(watch_command.app)
app.add_typer(install_command.app)
app.add_typer(stats_command.app)
app.add_typer(recalibrate_command.app)
app.add_typer(command_command.app, name="command")
app.add_typer(audit_command.app, name="audit")
archive_command.app.command("mark")(mark_command)
app.add_typer(archive_command.app, name="archive")
_VERDICTS = {Evaluation.OK: "OK", Evaluation.NOT_OK: "NotOK", Evaluation.NOT_DECIDABLE: "not decidable"}
_STDERR = 2
_SECTIONS = {"device": "This device", "station": "Its station"}


@app.callback()
def _common(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    del version


@app.command("setup")
def setup_command(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE.yaml", help="Configuration to write, or to begin with.")
    ] = Path("station.yaml"),
    *,
    camera: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Device number, URL or pipeline to begin with.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve the page at; 0.0.0.0 for browsers on other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port of the page.")] = 8480,
) -> None:
    """Set up a station in a browser: camera, region, good parts, test, broker. Then it runs.

    Interrupted at any step, it continues there when the command is given again.

    Examples: `shiftwatch-agent setup`; `shiftwatch-agent setup --camera rtsp://10.0.0.5/stream --host 0.0.0.0`
    """

    def show_address(order: SetupOrder) -> None:
        console.print(f"Open this in a browser: [bold]{escape(address(order))}[/]", soft_wrap=True)
        if host not in {"127.0.0.1", "localhost", "::1"}:
            console.print("[yellow]without TLS:[/] pictures and token cross the network readable", soft_wrap=True)

    logs.set_up("info", "text", "setup")
    stop = _stopped_by_signals()
    if config.exists():
        _become_owner(configuration.load(config))
    if set_up_station(new_order(config, host, port, camera), stop.requested, show_address):
        _run(config, stop, verbose=False)


@app.command("run")
def run_command(
    config: ConfigFile,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Watch one camera until it ends, or until SIGTERM or Ctrl-C.

    Without a bundle it serves the set-up page instead, and reports the state `not taught`.

    Example: `shiftwatch-agent run --config station.yaml`
    """
    _run(config, _stopped_by_signals(), verbose=verbose)


def _stopped_by_signals() -> Stop:
    stop = Stop()
    for number in ending_signals():
        signal.signal(number, lambda *_: stop.request())
    return stop


def _run(config: Path, stop: Stop, *, verbose: bool) -> None:
    settings = configuration.load(config)
    station = station_topics(settings.station).root
    is_read_by_program = logs.set_up("debug" if verbose else settings.log.level, settings.log.format, station)
    logs.log_crashes()
    faulthandler.enable(_STDERR)  # the watchdog ends an agent that hangs by SIGABRT: this logs where
    for exposure in exposures(settings, config):
        log.warning("%s; %s", exposure.what, exposure.remedy)
    try:
        _become_owner(settings)
        taught = wait_until_taught(config, settings, stop.requested)
        if taught is None:
            return
        summary = run_station(taught, stop)
    except ShiftwatchError as error:
        if not is_read_by_program:
            raise
        log.critical("%s", error.one_line)
        raise typer.Exit(EXIT_ERROR) from error
    log.info("stopped: %s", _summary_text(summary))


def _become_owner(settings: AgentConfig) -> None:
    owner = owner_of(settings.state_dir, archive_folder(settings))
    if owner is not None:
        become(owner)
        log.info("running as user %s, who owns %s", name_of(owner.uid), settings.state_dir)


def _summary_text(summary: Summary) -> str:
    verdicts = Counter(summary.verdicts) + Counter({Evaluation.NOT_DECIDABLE: summary.missed})
    without_part = {reason: count for reason, count in summary.dropped.items() if reason in NO_LOSS}
    dropped = {reason: count for reason, count in summary.dropped.items() if reason not in NO_LOSS}
    by_verdict = _listed({name: verdicts[each] for each, name in _VERDICTS.items()})
    results = summary.results + summary.missed
    texts = [
        f"{counted(summary.captured, 'frame')} captured, {counted(results, 'result')} ({by_verdict})",
        f"{summary.missed} of them for parts without a frame" if summary.missed else "",
        f"{counted(summary.late, 'part')} without a verdict within plc.deadline_ms" if summary.late else "",
        f"frames without a part: {_listed(without_part)}" if without_part else "",
        f"frames dropped: {_listed(dropped) or 'none'}",
        f"records lost: {_listed(summary.lost)}" if summary.lost else "",
        f"{counted(summary.waited, 'record')} had waited since earlier runs" if summary.waited else "",
        f"{counted(summary.published, 'record')} published, {summary.waiting} waiting in the outbox",
    ]
    return "; ".join(filter(None, texts))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


@app.command("config")
def config_command(
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE.yaml | KEY=VALUE ...]", help="Check this file; or print one with these values."),
    ] = None,
    *,
    reference: Annotated[bool, typer.Option("--reference", help="Print every key, as Markdown.")] = False,
) -> None:
    """Print an example configuration, or one with these values; or check a file.

    Examples: `shiftwatch-agent config > station.yaml`; `shiftwatch-agent config station.yaml`;
    `shiftwatch-agent config camera.source=rtsp://10.0.0.5/stream mqtt.host=10.0.0.2 > station.yaml`
    """
    if reference:
        sys.stdout.write(configuration.reference())
    elif not given:
        sys.stdout.write(configuration.example())
    elif len(given) == 1 and "=" not in given[0]:
        _check_configuration(Path(given[0]))
    else:
        sys.stdout.write(station_text(with_values({"bundle": "./bundle"}, given, Path.cwd())))


def _check_configuration(file: Path) -> None:
    loaded = configuration.load(file)
    console.print(f"{escape(str(file))}: well-formed", soft_wrap=True)
    for missing in configuration.missing_files(loaded):
        console.print(f"[yellow]not there yet:[/] {escape(missing)}", soft_wrap=True)


@app.command("doctor")
def doctor_command(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE.yaml",
            help="Also check this station: camera, broker, bundle; default: the only one here.",
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this device: what it has, what is wrong and how to fix it. Nothing is changed.

    Exit code 2 if there is a fault, 0 if there are only warnings.

    Examples: `shiftwatch-agent doctor`; `shiftwatch-agent doctor --config station.yaml`
    """
    config = config or station_if_only()
    report: dict[str, list[Finding]] = {}
    width = console.width if console.is_terminal else None
    with console.status("") as status:
        for section, finding in doctor_report.examine(config, lambda name: status.update(f"checking: {name}")):
            if not as_json and section not in report:
                console.print(f"[bold]{_SECTIONS[section]}[/]")
            for line in () if as_json else doctor_report.lines(finding, width):
                console.print(line, soft_wrap=True)
            report.setdefault(section, []).append(finding)
    findings = [finding for section in report.values() for finding in section]
    if as_json:
        sys.stdout.write(doctor_report.as_json(report))
    else:
        console.print(f"[bold]{doctor_report.summary(findings)}[/]")
    if doctor_report.worst_level(findings) == "fault":
        raise typer.Exit(EXIT_ERROR)


@app.command("demo")
def demo_command(
    folder: Annotated[Path, typer.Option(help="Folder for all files of the demo.")] = Path("shiftwatch-demo"),
) -> None:
    """See the whole system work in a minute and a half: no camera, no broker, no weights, no network.

    Exit code 1 if it found less than 90 % of the defects, or raised more than two false alarms.
    """
    become(owner_of(folder))
    from agent.demo.run import run_demo  # noqa: PLC0415 - calibration and the broker are no part of a running agent

    if not run_demo(folder).convincing:
        raise typer.Exit(1)


def main() -> None:
    """The command ``shiftwatch-agent``."""
    run(app)
