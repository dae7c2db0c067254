"""Who may change something from the page: whoever knows the token."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WRONG_AT_ONCE = 5.0
_ONE_MORE_AFTER_S = 10.0
_ADDRESSES = 256
_SCHEME = "Bearer "


class RefusedError(Exception):
    """A request that is not answered as it wishes.

    Args:
        status: Of HTTP.
        said: To whoever asked.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


class TokenAuth:
    """Compares tokens, and makes guessing slow: five wrong ones at once, then one in ten seconds, for each address.

    Args:
        token: None refuses everybody: the page is read-only.
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
        """Return for who may.

        Args:
            address: Of who asks.
            authorization: Content of that header.

        Raises:
            RefusedError: There is no token, this is another, or there were too many wrong ones before.
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
        left, at_s = self._left.get(address, (_WRONG_AT_ONCE, self._clock_s()))
        return min(_WRONG_AT_ONCE, left + (self._clock_s() - at_s) / _ONE_MORE_AFTER_S)

    def _note_wrong(self, address: str, left: float) -> None:
        self._left[address] = (left, self._clock_s())
        self._left.move_to_end(address)
        if len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
