"""A configuration file with any content is loaded, or refused with its problems: no traceback, hang or gigabytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import model
from agent.from_config import (
    broker_settings,
    camera_settings,
    camera_timeouts,
    recalibration_plan,
    sparkplug_topics,
    station_topics,
)
from agent.install.station_file import for_service
from tests.support.fuzzing import FUZZING, Door, report

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_LINES = model.example().splitlines()
_ODD = [
    "&a [*a]",
    "&a {b: *a}",
    "*nowhere",
    "'\\ud800'",
    '"\\ud800"',
    '"\\0"',
    '"\\e[31m"',
    "x" * 300,
    "x" * 70_000,
    "é" * 200,
    "[" * 5_000,
    "{a: " * 2_000 + "}" * 2_000,
    "[" + "0," * 60_000 + "]",
    "9" * 5_000,
    "1" + ":59" * 3_000,
    "-1",
    "1e308",
    ".nan",
    "-.inf",
    "0x7fffffffffffffffffff",
    "2024-13-45",
    "2024-01-01 25:00:00",
    "~nobody-of-this-name/bundle",
    "a..b",
    "!!int ''",
    "!!float x",
    "!!bool x",
    "!!timestamp x",
    "!!binary é",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!pairs [a: 1]",
    "!!python/object/apply:os.system [true]",
    "!<tag:yaml.org,2002:int> ''",
    "{? [a, b] : c}",
    "{1: 2, null: 3, true: 4, 1.5: 5}",
    "null",
    "[]",
    "{}",
    "|\n  text",
    "rtsp://" + "a" * 5_000,
    "videotestsrc ! appsink",
]
_BOMBS = (
    "a0: &a0 {k: v}\n" + "".join(f"a{n + 1}: &a{n + 1} {{k: [{f'*a{n},' * 9}]}}\n" for n in range(30)),
    "a0: &a0 {k: v}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{f'*a{n},' * 9}]}}\n" for n in range(30)),
)

_VALUES = st.one_of(st.sampled_from(_ODD), st.text(max_size=40), st.integers(), st.floats()).map(str)
_Change: TypeAlias = Callable[[list[str], int, st.DataObject], None]


def _key(lines: list[str], at: int) -> str:
    return lines[at].partition(":")[0]


def _replace_value(lines: list[str], at: int, data: st.DataObject) -> None:
    lines[at] = f"{_key(lines, at)}: {data.draw(_VALUES)}"


def _replace_key(lines: list[str], at: int, data: st.DataObject) -> None:
    lines[at] = f"{data.draw(_VALUES)}: 1"


def _insert(lines: list[str], at: int, data: st.DataObject) -> None:
    lines.insert(at, data.draw(st.one_of(_VALUES, st.sampled_from(_BOMBS))))


def _delete(lines: list[str], at: int, _data: st.DataObject) -> None:
    lines[at] = ""


def _repeat(lines: list[str], at: int, data: st.DataObject) -> None:
    lines[at:at] = lines[at : at + 3] * data.draw(st.sampled_from([1, 500]))


def _uncomment(lines: list[str], at: int, _data: st.DataObject) -> None:
    lines[at] = lines[at].replace("#", " ", 1)


def _name_zones(lines: list[str], at: int, data: st.DataObject) -> None:
    lines[at] = f"bundle: {{a: {data.draw(_VALUES)}, {data.draw(_VALUES)}: b}}"


_CHANGES: tuple[_Change, ...] = (
    _replace_value,
    _replace_key,
    _insert,
    _delete,
    _repeat,
    _uncomment,
    _name_zones,
)


def _content(data: st.DataObject) -> bytes:
    """The example, changed in one to three lines, and in half of the cases in some bytes as well."""
    lines = list(_LINES)
    for change in data.draw(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=3)):
        change(lines, data.draw(st.integers(0, len(lines) - 1)), data)
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        return content
    start = data.draw(st.integers(0, len(content)))
    return content[:start] + data.draw(st.binary(max_size=8)) + content[start + data.draw(st.integers(0, 200)) :]


def _used(path: Path) -> None:
    """All that is done with a configuration before anything is opened."""
    config = model.load(path)
    model.missing_files(config)
    station_topics(config.station)
    sparkplug_topics(config)
    camera_settings(config.camera)
    camera_timeouts(config.camera)
    recalibration_plan(config)
    broker_settings(config)
    for_service(path, path.parent / "state")


def test_any_configuration_is_loaded_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    door, path = Door("YAML configuration"), tmp_path / "station.yaml"

    @settings(FUZZING)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        path.write_bytes(_content(data))
        with door.case():
            _used(path)

    attempt()
    assert door.accepted
    assert door.refused
    report(door, capsys)
