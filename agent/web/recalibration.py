"""Recalibrations started in a browser. They run in the agent; this process remembers how the last one ended."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from agent.errors import StationUnreachableError
from agent.messages.figures import figure_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.messages.records import Payload


class Recalibration:
    """Starts one, and follows it on a thread of its own.

    Args:
        send: Sends the agent a command by name and arguments; yields its answers until it is done.
    """

    def __init__(self, send: Callable[[str, Payload], Iterator[Payload]]) -> None:
        self._send = send
        self._ended: Payload | None = None

    def start(self, arguments: Payload) -> Payload:
        """The first answer of the agent, which may refuse.

        Raises:
            StationUnreachableError: No agent answers.
        """
        first: SimpleQueue[Payload | StationUnreachableError] = SimpleQueue()
        threading.Thread(target=self._follow, args=(arguments, first), name="recalibration", daemon=True).start()
        answer = first.get()
        if isinstance(answer, StationUnreachableError):
            raise answer
        return answer

    def ended(self) -> Payload:
        """How the last one ended; all null before any has."""
        return self._ended or {"isActive": None, "isTrial": None, "error": None, "figures": [], "proposal": None}

    def _follow(self, arguments: Payload, first: SimpleQueue[Payload | StationUnreachableError]) -> None:
        answer: Payload | None = None
        try:
            for each in self._send("recalibrate", arguments):
                if answer is None:
                    first.put(each)
                answer = each
        except StationUnreachableError as error:
            if answer is None:
                first.put(error)
            else:
                self._note({"accepted": False, "error": error.one_line}, arguments)
            return
        if answer is not None and answer.get("progress") == 1:
            self._note(answer, arguments)

    def _note(self, answer: Payload, arguments: Payload) -> None:
        if arguments.get("cancel"):  # the cancelled recalibration has an answer of its own
            return
        figures, is_trial = answer.get("figures") or {}, bool(arguments.get("dryRun"))
        is_active = bool(answer["accepted"]) and not is_trial
        self._ended = {
            "isActive": is_active,
            "isTrial": is_trial,
            "error": answer.get("error"),
            "figures": list(figure_rows(figures)),
            "proposal": figures.get("thresholdProposal" if is_active else "thresholdProposalBefore"),
        }
