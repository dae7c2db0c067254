"""The bundles that were active in a zone, so that it can go back to one: a small file in the state folder."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

from agent.clock import now_ms
from agent.errors import CommandRefusedError, StateFolderError
from calibration.atomic_file import open_regular, replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibration.bundle.bundle import Bundle

log = logging.getLogger(__name__)

_KEPT = 50
_SHORTEST_PREFIX = 8


class Version(NamedTuple):
    """A bundle that was active; the field names are keys of the file.

    Attributes:
        threshold: The last one that it had.
        since_ms: When it became active.
        by: Who activated it; None for the configuration.
        why: Reason, for people.
        learnt_ms: Images labelled as good until then are part of it; None where that is unknown.
    """

    identity: str
    path: str
    threshold: float
    since_ms: int
    by: str | None = None
    why: str | None = None
    learnt_ms: int | None = None


class Versions:
    """Versions that were active, oldest first.

    Args:
        path: The file; created by the first `note`.
        configured: Identity of the bundle that the configuration names.
    """

    def __init__(self, path: Path, configured: str) -> None:
        self._path = path
        self._configured = configured
        self._lock = threading.Lock()
        self._configured_before, self.served = self._read()

    @property
    def commanded(self) -> Version | None:
        """The bundle that a command activated instead of the configured one; None once another one is configured."""
        if not self.served or self._configured_before != self._configured:
            return None
        return self.served[-1] if self.served[-1].identity != self._configured else None

    def learnt_ms(self, identity: str) -> int | None:
        """Time of the newest labels in a bundle; None where that is unknown."""
        known = [version.learnt_ms for version in self.served if version.identity == identity and version.learnt_ms]
        return known[-1] if known else None

    def note(
        self,
        bundle: Bundle,
        threshold: float,
        *,
        by: str | None = None,
        why: str | None = None,
        learnt_ms: int | None = None,
    ) -> bool:
        """Write down what is active from now on; whether it differs from the version before.

        Args:
            bundle: The active bundle.
            threshold: Its threshold.
            by: See Version.
            why: See Version.
            learnt_ms: See Version; None keeps the known value.

        Raises:
            OSError: It cannot be written.
        """
        learnt_ms = learnt_ms or self.learnt_ms(bundle.identity)
        version = Version(bundle.identity, str(bundle.path.absolute()), threshold, now_ms(), by, why, learnt_ms)
        with self._lock:
            is_new = not self.served or self.served[-1][:3] != version[:3]
            if is_new:
                self.served = [*self.served, version][-_KEPT:]
            if is_new or self._configured_before != self._configured:
                self._configured_before = self._configured
                self._write()
        return is_new

    def note_threshold(self, active: str, threshold: float) -> None:
        """Write down that the active bundle, given by its identity, has another threshold.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            if self.served and self.served[-1].identity == active:
                self.served = [*self.served[:-1], self.served[-1]._replace(threshold=threshold)]
                self._write()

    def before(self, active: str, prefix: str | None) -> Version:
        """The version to go back to.

        Args:
            active: Identity of the active bundle.
            prefix: Start of the identity of the version; None takes the last one before the active bundle.

        Raises:
            CommandRefusedError: There is no such version, or the start is too short or that of several.
        """
        others = {version.identity: version for version in self.served if version.identity != active}
        if prefix is not None:
            return self._named(prefix.lower(), others, active)
        if not others:
            raise CommandRefusedError(what="no other bundle was active here", remedy=_those(others))
        # By their order: the clock may have been wrong meanwhile.
        return next(version for version in reversed(self.served) if version.identity != active)

    def _write(self) -> None:
        known = {"configured": self._configured_before, "served": [version._asdict() for version in self.served]}
        replace_file(self._path, json.dumps(known, indent=1).encode())

    @staticmethod
    def _named(prefix: str, others: Mapping[str, Version], active: str) -> Version:
        found = [version for identity, version in others.items() if identity.startswith(prefix)]
        if len(prefix) < _SHORTEST_PREFIX:
            what = f"{prefix!r} is too short: give at least {_SHORTEST_PREFIX} characters of the bundle's hash"
            raise CommandRefusedError(what=what, remedy=_those(others))
        if len(found) > 1:
            remedy = f"give more characters of one of {', '.join(version.identity for version in found)}"
            raise CommandRefusedError(what=f"{len(found)} bundles begin with {prefix!r}", remedy=remedy)
        if not found:
            is_active = active.startswith(prefix)
            what = "that bundle is the active one" if is_active else "no such bundle was active here"
            raise CommandRefusedError(what=what, remedy=_those(others))
        return found[0]

    def _read(self) -> tuple[str | None, list[Version]]:
        try:
            with open_regular(self._path) as file:
                known = json.loads(file.read())
            return str(known["configured"]), [Version(**version) for version in known["served"]]
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise StateFolderError(
                what=f"cannot read {self._path}: {error.strerror}",
                remedy="give it to the agent's user (chown), or give the command as the user who owns it",
            ) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("the list of bundles in %s cannot be read; a new one is started: %s", self._path, error)
        return None, []


def _those(versions: Mapping[str, Version]) -> str:
    return f"bundles that were active: {', '.join(identity[:12] for identity in versions) or 'none'}"
