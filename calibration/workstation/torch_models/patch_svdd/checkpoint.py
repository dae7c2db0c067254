"""The state of a training after each epoch, from which an interrupted one continues."""

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
    """A file that is replaced after each epoch, whole or not at all.

    Attributes:
        path: The file.
        made_from: All that determines the training, by name; a checkpoint of anything else is refused.
    """

    path: Path
    made_from: Mapping[str, str]

    def restore(self, *parts: Any) -> int:  # noqa: ANN401 - torch's modules and optimisers share no type
        """Load the state of the parts, in the order in which they were kept.

        Returns:
            Epochs done; 0 without a file.

        Raises:
            SettingError: It belongs to other images or settings, or is damaged.
        """
        if not self.path.exists():
            return 0
        remedy = f"give the command that began it, or remove {self.path} to train from the start"
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            made_from, states, epochs = content["made_from"], content["states"], int(content["epochs"])
        except (*_NOT_OURS, OSError) as error:
            raise SettingError(
                what=f"{self.path.absolute()} is not a checkpoint of a training", remedy=remedy
            ) from error
        others = [name for name, value in self.made_from.items() if made_from.get(name) != value]
        if others:
            raise SettingError(
                what=f"{self.path.absolute()} holds a training with other {', '.join(others)}", remedy=remedy
            )
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        return epochs

    def keep(self, epochs: int, *parts: Any) -> None:  # noqa: ANN401 - as above
        """Write the state of the parts after this number of epochs.

        Raises:
            StorageError: No room or no permission; the file of the epoch before is unchanged.
        """
        buffer = io.BytesIO()
        states = [part.state_dict() for part in parts]
        torch.save({"made_from": dict(self.made_from), "epochs": epochs, "states": states}, buffer)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, buffer.getvalue())
        except OSError as error:
            raise StorageError(
                what=f"cannot keep the training in {self.path.absolute()}: {error.strerror}",
                remedy="free disk space there, or write the bundle to another disk; then give the same command again",
            ) from error
