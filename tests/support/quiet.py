"""A station that nobody commands and that has no controller."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agent.audit.log import AuditLog
from agent.commands.dispatcher import CommandDispatcher
from agent.messages.records import ResultCode
from agent.mqtt.live_messages import LiveMessages
from agent.trigger.plc_handshake import Handshake

if TYPE_CHECKING:
    from agent.messages.topics import Topics


def quiet_handshake(deadline_ms: int = 100) -> Handshake:
    return Handshake(deadline_ms, lambda: ResultCode.TOO_LATE)


def quiet_live_messages(topics: Topics, handshake: Handshake | None = None) -> LiveMessages:
    audit = AuditLog(Path(tempfile.mkdtemp()) / "audit.jsonl")
    handshake = handshake or quiet_handshake()
    return LiveMessages(topics, handshake, CommandDispatcher({}, audit, ()), handshake.overdue)
