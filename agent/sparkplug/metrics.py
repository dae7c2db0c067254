"""What is said over MQTT as JSON, as Sparkplug metrics: the same names, ``group/field``, and a type for each.

Lists and tables (regions, durations by stage) are JSON text: a metric that is not in the birth may not be sent later,
and which stages there are is not known then. What is new in a payload must be added here; a test compares.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agent.messages.records import to_json
from agent.sparkplug.payload import DataType, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.messages.records import Payload
    from agent.sparkplug.payload import Value

Group: TypeAlias = Literal["result", "alert", "status", "info", "health"]

# Not here, because Sparkplug has its own word for it: `historical`, the `timestamp` of health, `online`.
FIELDS: Mapping[Group, Mapping[str, DataType]] = {
    "result": {
        "resultId": DataType.STRING,
        "seq": DataType.INT64,
        "partId": DataType.STRING,
        "creationTime": DataType.DATE_TIME,
        "resultEvaluation": DataType.INT32,
        "resultCode": DataType.INT32,
        "score": DataType.DOUBLE,
        "threshold": DataType.DOUBLE,
        "margin": DataType.DOUBLE,
        "frames": DataType.INT32,
        "zone": DataType.STRING,
        "zones": DataType.STRING,
        "regions": DataType.STRING,
        "imageRef": DataType.STRING,
        "processingTimes": DataType.STRING,
        "isSimulated": DataType.BOOLEAN,
    },
    "alert": {
        "alertId": DataType.STRING,
        "type": DataType.STRING,
        "severity": DataType.INT32,
        "cause": DataType.STRING,
        "startTime": DataType.DATE_TIME,
        "endTime": DataType.DATE_TIME,
        "resultId": DataType.STRING,
    },
    "status": {
        "state": DataType.STRING,
        "reason": DataType.STRING,
        "sessionId": DataType.STRING,
        "version": DataType.STRING,
    },
    "info": {
        "bundleHash": DataType.STRING,
        "threshold": DataType.DOUBLE,
        "falseRejectRate": DataType.DOUBLE,
        "backend": DataType.STRING,
        "backendReason": DataType.STRING,
        "calibratedAt": DataType.DATE_TIME,
        "camera": DataType.STRING,
        "zones": DataType.STRING,
    },
    "health": {
        "fps": DataType.DOUBLE,
        "p50": DataType.STRING,
        "p99": DataType.STRING,
        "captured": DataType.INT64,
        "results": DataType.INT64,
        "lastResultAge": DataType.INT64,
        "camera": DataType.STRING,
        "dropped": DataType.STRING,
        "outboxDepth": DataType.INT64,
        "diskFree": DataType.INT64,
        "temperature": DataType.DOUBLE,
        "drift": DataType.STRING,
        "recalibration": DataType.STRING,
    },
}
_PYTHON_TYPES: Mapping[DataType, tuple[type, ...]] = {
    DataType.INT32: (int,),
    DataType.INT64: (int,),
    DataType.DOUBLE: (float, int),
    DataType.BOOLEAN: (bool,),
    DataType.STRING: (str,),
    DataType.DATE_TIME: (int,),
}


def metrics_of(group: Group, payload: Payload, timestamp_ms: int, *, is_historical: bool = False) -> list[Metric]:
    """Every metric of a group; one that the payload lacks, or that is not of its type, is null.

    Args:
        group: What the payload is.
        payload: Its content, as in `agent.messages.records`; empty before there is any.
        timestamp_ms: When it was taken.
        is_historical: It comes late.
    """
    return [
        Metric(
            name=f"{group}/{name}",
            type=type_,
            value=_value(payload.get(name), type_),
            timestamp_ms=timestamp_ms,
            is_historical=is_historical,
        )
        for name, type_ in FIELDS[group].items()
    ]


def _value(value: Any, type_: DataType) -> Value:  # noqa: ANN401 - any JSON value
    if isinstance(value, (dict, list)):
        value = to_json(value)
    # A record may be years old and another version's: what does not fit must not stop what does.
    fits = isinstance(value, _PYTHON_TYPES[type_]) and isinstance(value, bool) == (type_ is DataType.BOOLEAN)
    return value if fits and not (isinstance(value, float) and not math.isfinite(value)) else None
