"""``shiftwatch-agent capture``: records images of good parts for `shiftwatch-calibrate fit`."""

# No deferred annotations here: typer reads them.

import signal
from collections.abc import Callable  # noqa: TC003 - as everywhere in this file
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from agent.belt.part_camera import PartCamera
from agent.belt.passing_parts import PassingParts
from agent.camera.sources import kind_of
from agent.capture.recording import Recording, record, size_of_images
from agent.capture.selection import AtIntervals, Fit, Selection, Settled
from agent.config import model as configuration
from agent.config.camera import CameraConfig
from agent.config.inspection import TriggerConfig
from agent.config.option import only_station
from agent.errors import AgentRunningError
from agent.from_config import camera_of
from agent.state_lock import is_in_use
from calibration.errors import SettingError
from calibration.imaging.image_files import read_image
from calibration.imaging.region import Region
from calibration.plain_text import counted
from calibration.terminal import EXIT_ERROR, ending_signals, error_console, escape, say

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write the images; what is there stays.")]
Source = Annotated[
    str | None,
    typer.Option(
        "--camera",
        metavar="SOURCE",
        help="Device number, genicam:SERIAL, URL or pipeline, instead of a station's camera.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE.yaml",
        help="Use camera and trigger of this station; default: the only one here.",
    ),
]
Count = Annotated[int | None, typer.Option(metavar="N", min=1, help="End with N images in the folder.")]
Seconds = Annotated[float | None, typer.Option(metavar="S", min=0.1, help="End after this time.")]
SettledOnly = Annotated[
    bool | None,
    typer.Option(
        "--settled/--all",
        help="One image of each part that comes and stands still, or also of what moves.  [default: --settled where "
        "the station's trigger.source is motion, otherwise --all]",
    ),
]
Passing = Annotated[
    bool, typer.Option("--passing", help="One image of each part on a belt that does not stop, cut out of the frame.")
]
Turn = Annotated[bool, typer.Option("--turn", help="With --passing: turn each part so that its long side is upright.")]
Interval = Annotated[
    float, typer.Option("--interval-s", metavar="S", min=0, help="Least time between two images, with --all.")
]
Roi = Annotated[
    str | None, typer.Option(metavar="X,Y,W,H", help="With --settled: watch only this region of the frame.")
]
Empty = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="With --settled: a frame of the place without a part, which is not kept."),
]


@app.command("capture")
def capture_command(  # noqa: PLR0913 - one for each option
    folder: Folder,
    *,
    camera: Source = None,
    config: ConfigFile = None,
    count: Count = None,
    seconds: Seconds = None,
    settled: SettledOnly = None,
    passing: Passing = False,
    turn: Turn = False,
    interval_s: Interval = 1.0,
    roi: Roi = None,
    empty: Empty = None,
) -> None:
    """Record images of good parts, as the camera gives them, until there are enough or Ctrl-C.

    Continues in a folder that has images already. Then: `shiftwatch-calibrate fit FOLDER --out BUNDLE`.

    Examples: `shiftwatch-agent capture photos/good --camera 0 --count 200`;
    `shiftwatch-agent capture photos/good --config station.yaml --settled --count 200`;
    `shiftwatch-agent capture photos/good --camera belt.mp4 --passing`
    """
    source, usually_settled, settled_ms = _camera_of(camera, config)
    is_settled = (usually_settled and not passing) if settled is None else settled
    _check_options(passing=passing, settled=is_settled, turn=turn, watched=bool(roi or empty))
    selection: Selection = Fit() if passing else AtIntervals(interval_s)
    if is_settled:
        place = None if empty is None else read_image(empty)
        selection = Settled(settled_ms, None if roi is None else Region.from_text(roi), place)
    watching = _Watching(count, seconds)
    for number in ending_signals():  # a shell has the first ignored in the background
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), error_console.status("waiting for the camera") as status:
        watching.show = status.update
        frames = _parts_before(source, folder, is_turned=turn) if passing else camera_of(source, loop=False)
        with frames:
            record(frames, selection, folder, watching.is_enough)
    done = watching.recording
    say(f"{escape(str(folder))}: {counted(done.kept, 'image')}, from {counted(done.frames, 'frame')} now")
    if done.damaged:
        say(f"[yellow]{counted(done.damaged, 'damaged frame')}[/] not kept: check cable and power of the camera")
    if not done.kept:
        raise typer.Exit(EXIT_ERROR)
    say(f"next: remove what shows no good part, then: shiftwatch-calibrate fit {escape(str(folder))} --out BUNDLE")
    size = size_of_images(folder)
    if passing and size is not None:
        turned = " trigger.turn=true" * turn
        say(f"for the station's configuration: trigger.source=passing 'trigger.part_px={list(size)}'{turned}")


def _check_options(*, passing: bool, settled: bool, turn: bool, watched: bool) -> None:
    if passing and settled:
        raise SettingError(what="both --passing and --settled are given", remedy="give one of them")
    if turn and not passing:
        raise SettingError(what="--turn goes with --passing", remedy="add --passing, or leave it out")
    if watched and not settled:
        raise SettingError(what="--roi and --empty go with --settled", remedy="add --settled, or leave them out")


def _parts_before(source: CameraConfig, folder: Path, *, is_turned: bool) -> PartCamera:
    """The parts that pass before this camera, each in an image as large as those that the folder has already."""
    every_frame = source.model_copy(update={"playback": "fast"})  # of a file
    return PartCamera(camera_of(every_frame, loop=False), PassingParts(is_turned=is_turned), size_of_images(folder))


class _Watching:
    """Shows how far the recording is, and when there is enough.

    Args:
        count: Images in the folder that are enough; None: any number.
        seconds: Time that is enough; None: any time.
    """

    def __init__(self, count: int | None, seconds: float | None) -> None:
        self.recording = Recording(0)
        self.show: Callable[[str], None] = lambda _: None
        self._count = count
        self._seconds = seconds
        self._kept_before: int | None = None

    def is_enough(self, recording: Recording) -> bool:
        self.recording = recording
        self._kept_before = recording.kept if self._kept_before is None else self._kept_before
        self.show(self._text())
        is_late = self._seconds is not None and recording.elapsed_s >= self._seconds
        return is_late or (self._count is not None and recording.kept >= self._count)

    def _text(self) -> str:
        done = self.recording
        texts = [
            counted(done.kept, "image") if self._count is None else f"{done.kept} of {counted(self._count, 'image')}",
            counted(done.frames, "frame") if done.frames else "waiting for the camera",
            f"the camera is lost: {escape(done.lost)}" if done.lost else "",
            self._left(),
            "Ctrl-C ends",
        ]
        return ", ".join(filter(None, texts))

    def _left(self) -> str:
        done = self.recording
        left_s = [] if self._seconds is None else [self._seconds - done.elapsed_s]
        written = done.kept - (self._kept_before or 0)
        if self._count is not None and written:
            left_s.append((self._count - done.kept) * done.elapsed_s / written)
        return f"about {timedelta(seconds=max(0, round(min(left_s))))} left" if left_s else ""


def _camera_of(camera: str | None, config: Path | None) -> tuple[CameraConfig, bool, float]:
    """The camera; whether parts settle before it, and for how long, ms."""
    if camera is not None:
        if config is not None:
            raise SettingError(what="both --camera and --config are given", remedy="give one of them")
        return CameraConfig(source=camera), False, TriggerConfig().settled_ms
    loaded = configuration.load(config or only_station())
    if kind_of(loaded.camera.source) != "path" and is_in_use(loaded.state_dir):
        raise AgentRunningError(
            what="the camera is used by the agent that is running on this station",
            remedy="stop it meanwhile; or take the images that it kept: shiftwatch-agent archive export FOLDER",
        )
    return loaded.camera, loaded.trigger.source == "motion", loaded.trigger.settled_ms
