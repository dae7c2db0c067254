"""Verdicts and result codes as the page shows them."""

from __future__ import annotations

from agent.messages.records import Evaluation, ResultCode

VERDICTS = {
    Evaluation.UNDEFINED: "NOT DECIDABLE",
    Evaluation.OK: "OK",
    Evaluation.NOT_OK: "NOT OK",
    Evaluation.NOT_DECIDABLE: "NOT DECIDABLE",
}
CODES: dict[int, str] = {
    ResultCode.NONE: "",
    ResultCode.FRAME_UNUSABLE: "frame does not fit the bundle",
    ResultCode.ENGINE_FAULT: "the network failed",
    ResultCode.TOO_LATE: "too late",
    ResultCode.CAMERA_LOST: "camera lost",
    ResultCode.PAUSED: "paused",
    ResultCode.DARK: "picture is dark",
    ResultCode.OVER_EXPOSED: "picture is over-exposed",
    ResultCode.BLOCKED: "view is blocked",
    ResultCode.BLURRED: "picture is blurred",
    ResultCode.FROZEN: "picture is frozen",
    ResultCode.MOVED: "camera has moved",
    ResultCode.DAMAGED: "frame is damaged",
    ResultCode.NOT_TAUGHT: "not taught yet",
    ResultCode.TOUCHING: "parts touch",
    ResultCode.CUT_OFF: "part was never wholly in view",
    ResultCode.UNCLEAR: "no part as the others",
}
