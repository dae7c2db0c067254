"""The state of a training every few steps, from which an interrupted one continues."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from calibration.atomic_file import replace_file
from calibration.errors import SettingError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Raised by torch for a file that it did not write, or that holds something else.
_NOT_OURS = (EOFError, LookupError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Checkpoint:
    """A file that is replaced every few steps, whole or not at all.

    Attributes:
        path: The file.
        made_from: All that determines the training but its length, by name; a checkpoint of anything else is refused.
    """

    path: Path
    made_from: Mapping[str, str]

    def restore(self, steps: int, *parts: Any) -> int:  # noqa: ANN401 - torch's modules and optimisers share no type
        """Load the state of the parts, in the order in which they were kept, for a training of this many steps.

        Returns:
            Steps done; 0 without a file.

        Raises:
            SettingError: It belongs to other images or settings, has more steps, or is damaged.
        """
        if not self.path.exists():
            return 0
        remedy = f"give the command that began it, or remove {self.path} to train from the start"
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            made_from, states, done = content["made_from"], content["states"], int(content["steps"])
        except (*_NOT_OURS, OSError) as error:
            raise SettingError(
                what=f"{self.path.absolute()} is not a checkpoint of a training", remedy=remedy
            ) from error
        others = [name for name, value in self.made_from.items() if made_from.get(name) != value]
        if others:
            raise SettingError(
                what=f"{self.path.absolute()} holds a training with other {', '.join(others)}", remedy=remedy
            )
        if done > steps:
            raise SettingError(
                what=f"{self.path.absolute()} holds {done} steps of a training, more than {steps}",
                remedy=f"give steps={done} or more, or remove {self.path} to train from the start",
            )
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        return done

    def keep(self, steps: int, *parts: Any) -> None:  # noqa: ANN401 - as above
        """Write the state of the parts after this number of steps.

        Raises:
            StorageError: No room or no permission; the file before it is unchanged.
        """
        buffer = io.BytesIO()
        states = [part.state_dict() for part in parts]
        torch.save({"made_from": dict(self.made_from), "steps": steps, "states": states}, buffer)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, buffer.getvalue())
        except OSError as error:
            raise StorageError(
                what=f"cannot keep the training in {self.path.absolute()}: {error.strerror}",
                remedy="free disk space there, or write the bundle to another disk; then give the same command again",
            ) from error
