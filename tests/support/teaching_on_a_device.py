"""The program that teaches, where the workstation's packages are not installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

ABSENT = ("torch", "timm", "torchvision", "sklearn", "safetensors", "matplotlib", "dask", "distributed", "amqtt")


class _Absent:
    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name.partition(".")[0] in ABSENT:
            message = f"No module named {name!r}"
            raise ModuleNotFoundError(message, name=name)


def main(order: dict[str, Any], to_parent: socket.socket) -> None:
    sys.meta_path.insert(0, _Absent)
    from agent.setup import teaching_main  # noqa: PLC0415 - after the packages are gone

    teaching_main.main(order, to_parent)
