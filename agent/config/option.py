"""The option ``--config``, which may be left out where there is only one station."""

# No deferred annotations here: typer reads these types.

from pathlib import Path
from typing import Annotated

import typer

from calibration.errors import SettingError

CONFIGURATIONS = Path("/etc/shiftwatch")
"""Where `shiftwatch-agent install` puts the configurations of stations."""
_HERE = Path("station.yaml")


def stations_here() -> list[Path]:
    """Configurations to choose from: ``station.yaml`` in this folder, and those of the installed stations."""
    installed = sorted(CONFIGURATIONS.glob("*.yaml"))
    is_another = _HERE.is_file() and _HERE.resolve() not in installed
    return [_HERE, *installed] if is_another else installed


def only_station() -> Path:
    """The configuration of the only station here.

    Raises:
        SettingError: There is none, or several.
    """
    found = stations_here()
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingError(
            what=f"there are several stations here: {', '.join(map(str, found))}",
            remedy="name one of them with --config",
        )
    raise SettingError(
        what=f"there is no station here: no {_HERE} in this folder, none in {CONFIGURATIONS}",
        remedy="name its configuration with --config; a first one: shiftwatch-agent setup",
    )


def station_if_only() -> Path | None:
    """The configuration of the only station here, or None."""
    found = stations_here()
    return found[0] if len(found) == 1 else None


ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE.yaml",
        default_factory=only_station,
        show_default="the only station here",
        help="Configuration of the station.",
    ),
]
