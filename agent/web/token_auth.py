"""Changes from the page need the token."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_WRONG = 5.0
_ONE_MORE_AFTER_S = 10.0
_ADDRESSES = 256
_SCHEME = "Bearer "


class RefusedError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        message: For the sender.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TokenAuth:
    """Compares tokens, and slows guessing down: each address may try five wrong ones, then one every ten seconds.

    Args:
        token: None refuses all changes: the page is read-only.
        clock_s: Monotonic.
    """

    def __init__(self, token: str | None, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._token = token
        self._clock_s = clock_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def is_possible(self) -> bool:
        """Whether there is a token at all."""
        return self._token is not None

    def check(self, address: str, authorization: str) -> None:
        """Check the token of a request.

        Args:
            address: Address of the sender.
            authorization: Content of that header.

        Raises:
            RefusedError: The page has no token, this is another, or too many wrong ones came before.
        """
        if self._token is None:
            raise RefusedError(403, "this page is read-only; give web.token_file in the station's configuration")
        left = self._wrong_ones_left(address)
        if left < 1:
            raise RefusedError(429, f"too many wrong tokens; try again in {_ONE_MORE_AFTER_S:g} s")
        given = authorization.removeprefix(_SCHEME) if authorization.startswith(_SCHEME) else ""
        if not given:
            raise RefusedError(401, "this needs the token")
        if not hmac.compare_digest(given.encode(errors="replace"), self._token.encode()):
            self._note_wrong(address, left - 1)
            raise RefusedError(401, "the token is wrong")

    def _wrong_ones_left(self, address: str) -> float:
        left, at_s = self._left.get(address, (_MOST_WRONG, self._clock_s()))
        return min(_MOST_WRONG, left + (self._clock_s() - at_s) / _ONE_MORE_AFTER_S)

    def _note_wrong(self, address: str, left: float) -> None:
        self._left[address] = (left, self._clock_s())
        self._left.move_to_end(address)
        if len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
