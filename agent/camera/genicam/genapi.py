"""Features of a camera through GenApi's own nodes, as the libraries of vendors hand them out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agent.camera.genicam.features import GenicamError

if TYPE_CHECKING:
    from collections.abc import Callable

_READ, _WRITE, _BOTH = 3, 2, 4  # EAccessMode


class NodeFeatures:
    """See Features.

    Args:
        find: The node of that name, or None; may raise what the library raises.
        failure: The base of the library's exceptions.
        names: How the library names the methods for access mode, reading, writing and executing.
    """

    def __init__(self, find: Callable[[str], Any], failure: type[Exception], names: tuple[str, str, str, str]) -> None:
        self._find = find
        self._failure = failure
        self._access_mode, self._to_string, self._from_string, self._execute = names

    def has(self, name: str) -> bool:
        """See Features."""
        try:
            node = self._find(name)
            return node is not None and getattr(node, self._access_mode)() in {_READ, _WRITE, _BOTH}
        except self._failure:
            return False

    def read(self, name: str) -> str:
        """See Features."""
        return str(self._call(name, self._to_string))

    def write(self, name: str, value: str) -> None:
        """See Features."""
        self._call(name, self._from_string, value)

    def execute(self, name: str) -> None:
        """See Features."""
        self._call(name, self._execute)

    def _call(self, name: str, method: str, *arguments: str) -> object:
        try:
            node = self._find(name)
            if node is None:
                text = f"it has no feature {name}"
                raise GenicamError(text)
            result: object = getattr(node, method)(*arguments)
        except self._failure as error:
            raise GenicamError(one_line(error)) from error
        return result


def one_line(error: Exception) -> str:
    """What a library says, without line breaks and without the place in its own code."""
    return re.sub(r"[. ]*: \w+ thrown in node .*", "", " ".join(str(error).split()))
