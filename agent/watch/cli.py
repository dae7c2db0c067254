"""``shiftwatch-agent watch``: stations live in the terminal, or line by line for other programs."""

from __future__ import annotations

import io
import signal
import sys
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.live import Live

from agent.config import model as configuration
from agent.config.option import station_if_only
from agent.config.secret_files import read_secret
from agent.from_config import broker_settings, station_topics
from agent.mqtt.connect import BrokerSettings
from agent.watch.output import LineOutput, ScreenOutput
from agent.watch.subscribe import subscribe
from calibration.errors import SettingError
from calibration.terminal import EXIT_ERROR, console, ending_signals, error_console, escape

_ALL_STATIONS = "+/+/+/+/+/vision/+"
_PORT, _TLS_PORT = 1883, 8883

app = typer.Typer()
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE.yaml", help="Watch this station, at its broker; default: the only one here."
    ),
]
PasswordFile = Annotated[Path | None, typer.Option(metavar="FILE", help="File that holds the password.")]
CaFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates to trust; default: the system's.")]


@app.command("watch")
def watch_command(  # noqa: PLR0913 - one for each option
    *,
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Broker to connect to instead.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the broker; default: 1883, with TLS 8883.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(metavar="ROOT", help=f"Stations to watch there; default: all, '{_ALL_STATIONS}'.")
    ] = None,
    username: Annotated[str | None, typer.Option(help="User name at the broker.")] = None,
    password_file: PasswordFile = None,
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS, and verify the broker's certificate.")] = False,
    ca_file: CaFile = None,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after N results, or when all stations are paused.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as one JSON object.")] = False,
) -> None:
    """Show what stations publish, live, until Ctrl-C. In a pipe: one line for each result, alert, status and answer.

    It only subscribes, and needs no right to publish.

    Examples: `shiftwatch-agent watch --config station.yaml`;
    `shiftwatch-agent watch --host broker --topic 'acme/+/+/line2/+/vision/+' | grep NotOK`
    """
    is_broker_given = any(
        each is not None for each in (host, port, topic, username, password_file, tls or None, ca_file)
    )
    _refuse(is_broker_given and config is not None, "--config together with broker options", "give one of them")
    config = config if is_broker_given else config or station_if_only()
    if config is not None:
        loaded = configuration.load(config)
        settings, root = broker_settings(loaded), station_topics(loaded.station).root
    else:
        _refuse(password_file is not None and username is None, "--password-file without --username", "give both")
        _refuse(ca_file is not None and not tls, "--ca-file without --tls", "give both")
        settings = BrokerSettings(
            host=host or "localhost",
            port=port or (_TLS_PORT if tls else _PORT),
            client_id="",
            username=username,
            password=read_secret(password_file, "--password-file"),
            tls=tls,
            ca_file=ca_file,
        )
        root = topic or _ALL_STATIONS
    _watch(replace(settings, client_id=f"shiftwatch-watch-{uuid4().hex[:8]}"), _below(root), count, as_json=as_json)


def _watch(settings: BrokerSettings, topic: str, count: int | None, *, as_json: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a part may have a name that this terminal cannot show
    for number in ending_signals():  # a shell has the first ignored in the background
        signal.signal(number, signal.default_int_handler)
    output: LineOutput | ScreenOutput
    with suppress(KeyboardInterrupt):
        if as_json or not sys.stdout.isatty() or console.is_dumb_terminal:
            with closing(LineOutput(settings.address, count, as_json=as_json)) as output:
                subscribe(settings, topic, output)
        else:
            with Live(console=console, auto_refresh=False) as live:
                output = ScreenOutput(live, settings.address, topic, count)
                subscribe(settings, topic, output)
        if output.limit.shortfall is not None:
            error_console.print(escape(output.limit.shortfall))
            raise typer.Exit(EXIT_ERROR)


def _below(root: str) -> str:
    """The subscription to all messages of the stations with this root."""
    levels = root.removesuffix("/#").split("/")
    if any(not level or ("+" in level and level != "+") or set(level) & set("#\0") for level in levels):
        raise SettingError(
            what=f"--topic {root!r} is not a topic root",
            remedy=f"name each level, or use + for any: {_ALL_STATIONS}",
        )
    return "/".join([*levels, "#"])


def _refuse(is_wrong: bool, what: str, remedy: str) -> None:  # noqa: FBT001 - the condition reads as a sentence
    if is_wrong:
        raise SettingError(what=f"cannot use {what}", remedy=remedy)
