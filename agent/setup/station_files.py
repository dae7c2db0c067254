"""What a set-up leaves behind: the station's configuration, its bundles and its secrets."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from agent.config import loader
from agent.config.model import AgentConfig
from agent.config.station_text import station_text
from agent.config.yaml_values import not_of_a_file, values_in
from agent.errors import SetupError
from calibration.atomic_file import flush_folder, replace_file
from calibration.bundle.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

SECTIONS = ("camera", "trigger", "station", "mqtt")
"""Sections of the configuration that a set-up decides about."""


def station_values(
    decided: Mapping[str, Any], before: Mapping[str, Any], bundles: Mapping[str, Path], empty: Path | None
) -> dict[str, Any]:
    """The configuration, as YAML has it.

    Args:
        decided: Sections of the draft.
        before: The configuration that there was; its other keys stay, but for the threshold of another bundle.
        bundles: Folder of the bundle of each zone.
        empty: Image of the empty place, if there is one.
    """
    values: dict[str, Any] = {**before, **{name: dict(decided[name]) for name in SECTIONS if decided.get(name)}}
    values["decision"] = {key: value for key, value in (before.get("decision") or {}).items() if key != "threshold"}
    if values.get("trigger", {}).get("source") == "motion" and empty is not None:
        values["trigger"] = {**values["trigger"], "empty": str(empty)}
    paths = {zone: str(path) for zone, path in bundles.items()}
    values["bundle"] = paths.get("", paths)
    return values


def checked(values: Mapping[str, Any], folder: Path) -> AgentConfig:
    """The configuration; raises ConfigError if the values do not make one."""
    what = "the station cannot be configured like this"
    return loader.validated(AgentConfig, values, folder, what, list(not_of_a_file(values)))


def read_values(file: Path) -> dict[str, Any]:
    """The values of a configuration; none if there is no file. Raises ConfigError if it cannot be read."""
    return values_in(file) if file.exists() else {}


@contextmanager
def deploying(bundles: Mapping[str, Path], folder: Path) -> Iterator[dict[str, Path]]:
    """Copies the bundles; at the end of the block they stand in their places, or not at all if it has failed.

    Args:
        bundles: Folder of the bundle of each zone.
        folder: Where they will be.

    Yields:
        The place of the bundle of each zone: where this very bundle is already, or one that is free.

    Raises:
        SetupError: They cannot be copied.
        BundleError: One, or its copy, is not whole.
    """
    places: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    try:
        for zone, path in bundles.items():
            places[zone] = place = _place(open_bundle(path).identity, folder / (zone or "bundle"), copies.values())
            if not place.exists():
                part = place.with_name(f".{place.name}.part")
                copies[part] = place
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(path, part)
                open_bundle(part)
        os.sync()
        yield places
        for part, place in copies.items():
            part.rename(place)
        flush_folder(folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        for part in copies:
            shutil.rmtree(part, ignore_errors=True)


def write_station(file: Path, values: Mapping[str, Any]) -> Path | None:
    """Write the configuration; the one before is kept next to it, and returned.

    Raises:
        SetupError: It cannot be written.
    """
    kept = None
    try:
        if file.exists():
            before = file.with_name(f"{file.stem}-before{file.suffix}")
            kept = next(each for each in _numbered(before) if not os.path.lexists(each))
            shutil.copy2(file, kept)
        replace_file(file, station_text(values).encode(), 0o600)
    except OSError as error:
        raise _not_written(file, error) from error
    return kept


def relative(values: Any, home: Path) -> Any:  # noqa: ANN401 - whatever YAML has
    """The values, with paths below the folder of the configuration as ``./...``."""
    if isinstance(values, dict):
        return {key: relative(value, home) for key, value in values.items()}
    prefix = f"{home}/"
    return f"./{values.removeprefix(prefix)}" if isinstance(values, str) and values.startswith(prefix) else values


def write_secret(file: Path, content: str) -> Path:
    """Write a password or token, readable by this user only; raises SetupError if it cannot be written."""
    try:
        replace_file(file, f"{content}\n".encode(), 0o600)
    except OSError as error:
        raise _not_written(file, error) from error
    return file


def _place(identity: str, path: Path, taken: Collection[Path]) -> Path:
    """Where this bundle is, or else can be."""
    candidates = (each for each in _numbered(path) if each not in taken)
    return next(each for each in candidates if not os.path.lexists(each) or _is_bundle(each, identity))


def _is_bundle(path: Path, identity: str) -> bool:
    try:
        return open_bundle(path).identity == identity
    except Exception:  # noqa: BLE001 - whatever is there, it is another
        return False


def _numbered(path: Path) -> Iterator[Path]:
    """This path, and then with a number behind its name."""
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))


def _not_written(path: Path, error: OSError) -> SetupError:
    return SetupError(
        what=f"cannot write {path}: {error.strerror or error}",
        remedy="fix the permissions of its folder, or free space there, and try again",
    )
