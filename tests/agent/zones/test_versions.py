from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.errors import CommandRefusedError
from agent.zones.versions import Version, Versions

if TYPE_CHECKING:
    from pathlib import Path

ACTIVE, OLDER, OLDEST = "ac" * 32, "0123456789abcdef" * 4, "0123456789abcdee" + "f" * 48


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    served = [Version(name, f"/{name}", 1.0, ms)._asdict() for ms, name in enumerate((OLDEST, OLDER, ACTIVE))]
    (tmp_path / "versions.json").write_text(json.dumps({"configured": ACTIVE, "served": served}))
    return Versions(tmp_path / "versions.json", ACTIVE)


def test_without_a_beginning_the_last_other_version_is_taken(versions: Versions) -> None:
    assert versions.before(ACTIVE, None).identity == OLDER


def test_the_last_other_version_is_taken_by_its_order_whatever_the_clock_said(tmp_path: Path) -> None:
    served = [Version(name, f"/{name}", 1.0, ms)._asdict() for ms, name in ((3000, OLDEST), (4000, OLDER), (5, ACTIVE))]
    served[1]["since_ms"] = 7  # the device woke up in 1970
    (tmp_path / "versions.json").write_text(json.dumps({"configured": ACTIVE, "served": served}))
    assert Versions(tmp_path / "versions.json", ACTIVE).before(ACTIVE, None).identity == OLDER


@pytest.mark.parametrize(("prefix", "identity"), [(OLDER, OLDER), (OLDEST[:16], OLDEST), (OLDER[:16].upper(), OLDER)])
def test_a_beginning_that_only_one_version_has_names_it(versions: Versions, prefix: str, identity: str) -> None:
    assert versions.before(ACTIVE, prefix).identity == identity


@pytest.mark.parametrize(
    ("prefix", "what", "remedy"),
    [
        ("0", "'0' is too short: give at least 8 characters", f"bundles that were active: {OLDEST[:12]}, {OLDER[:12]}"),
        ("0123456", "'0123456' is too short: give at least 8 characters", OLDER[:12]),
        (OLDER[:8], "2 bundles begin with '01234567'", f"give more characters of one of {OLDEST}, {OLDER}"),
        (OLDER[:15], "2 bundles begin with", OLDEST),
        (ACTIVE[:8], "that bundle is the active one", OLDER[:12]),
        ("f" * 8, "no such bundle was active here", OLDER[:12]),
        ("../../etc", "no such bundle was active here", OLDER[:12]),
    ],
)
def test_another_beginning_is_refused_with_its_cause(versions: Versions, prefix: str, what: str, remedy: str) -> None:
    with pytest.raises(CommandRefusedError) as caught:
        versions.before(ACTIVE, prefix)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
