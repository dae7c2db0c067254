"""The steps of a set-up, as the page takes them; each may be taken again at any time."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.errors import SetupError
from agent.from_config import broker_settings, station_topics
from agent.messages.topics import Topics
from agent.mqtt.access import try_access
from agent.setup.bench import Bench
from agent.setup.continued import continued
from agent.setup.draft import Draft, usable
from agent.setup.empty_place import EmptyPlace
from agent.setup.kept_parts import take_kept_parts
from agent.setup.section_values import camera_values, merged, mqtt_values, trigger_values, without_secrets
from agent.setup.station_files import (
    checked,
    deploying,
    read_values,
    relative,
    station_values,
    write_secret,
    write_station,
)
from agent.setup.step_values import STEPS
from agent.setup.teaching import LEAST_IMAGES, Teaching
from agent.setup.tray import Tray
from agent.setup.trial import Trial
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from agent.config.model import AgentConfig
    from agent.messages.records import Payload
    from agent.setup.order import SetupOrder
    from agent.setup.step_values import (
        BrokerStep,
        CameraStep,
        EmptyPlaceStep,
        NothingMore,
        PartStep,
        SwitchStep,
        TeachStep,
        ThrowOutStep,
        WrongStep,
        ZonesStep,
    )

log = logging.getLogger(__name__)

_TEACH_AGAIN_AT = 1.5
"""While parts are collected they are taught as soon as there are this many times as many as the last time."""


class Steps:
    """All of a set-up, from enter to exit; safe from any thread.

    Args:
        order: What is set up.
        ended: Called when the station is to start.

    Raises:
        ShiftwatchError: The folder cannot be written, or what is in it cannot be read.
    """

    def __init__(self, order: SetupOrder, ended: Callable[[], object]) -> None:
        self._order = order
        self._ended = ended
        self._config = Path(order.config)
        self._home = self._config.parent
        self._folder = folder = self._home / "setup"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SetupError(
                what=f"cannot make the folder {folder}: {error.strerror}", remedy="fix the permissions of its folder"
            ) from error
        self._before = read_values(self._config)
        self._empty = EmptyPlace(self._home / "empty.png")
        self._archive = self._home / self._before.get("state_dir", "state") / "archive"
        self._password = self._home / "mqtt-password"
        self.drafts = continued(folder / "draft.yaml", order, self._before, self._empty.file)
        self.tray = Tray(folder / "good")
        self.teaching = Teaching(folder / "taught", self.drafts, self.tray)
        self.bench = Bench(self.drafts, self.tray, self._empty.file, self._teach_while_collecting)
        self.drafts.changed = self._follow
        self.teaching.taught = self._renew_trial
        self._one_at_a_time, self._one_try_at_a_time = threading.Lock(), threading.Lock()
        self._is_over = False
        self._broker_found: Payload = {}
        self._has_tested = False

    def __enter__(self) -> Self:
        """Begin."""
        self.bench.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """End camera, teaching and trial."""
        self.bench.__exit__()
        self._end_trial()
        self.teaching.cancel()

    def state(self) -> Payload:
        """Everything that the page shows."""
        draft, marks = self.drafts.draft, self.teaching.marks
        values = {name: value for name, value in self.drafts.values.items() if name != "thrown_out"}
        trial = self.bench.trial
        thrown_out = set(draft.thrown_out)
        return {
            "at": now_ms(),
            "draft": without_secrets(values),
            "topics": station_topics(draft.station).root,
            "camera": self.bench.state(),
            "tray": [
                {"name": name, "isOut": name in thrown_out, "mark": marks.get(name, "")} for name in self.tray.names
            ],
            "hasArchive": self._archive.is_dir(),
            "leastImages": LEAST_IMAGES,
            "teaching": self.teaching.state(),
            "trial": None if trial is None else trial.state(),
            "hasTested": self._has_tested,
            "broker": self._broker_found,
            "config": str(self._config),
        }

    def do(self, step: str, values: Mapping[str, Any]) -> None:
        """Take a step, after those that others have begun.

        Args:
            step: One of `STEPS`.
            values: What it takes.

        Raises:
            ShiftwatchError: It cannot be done; what was decided before stays.
        """
        given = usable(STEPS[step], values, self._home)
        with self._one_at_a_time:
            if self._is_over:
                raise SetupError(what="the set-up is over: the station starts", remedy="look at its own page")
            getattr(self, f"_{step}")(given)
        if step == "broker":
            self._try_broker()  # which may take its time

    def _camera(self, given: CameraStep) -> None:
        """Use this camera, with these settings."""
        before = self.drafts.values.get("camera") or {}
        self.drafts.change(camera=camera_values(given, before, self.drafts.draft.camera))

    def _zones(self, given: ZonesStep) -> None:
        """Inspect these regions."""
        self.drafts.change(zones=given.zones)

    def _part(self, given: PartStep) -> None:
        """What a part is."""
        self.drafts.change(trigger=trigger_values(given, self.drafts.values.get("trigger") or {}))

    def _empty_place(self, given: EmptyPlaceStep) -> None:
        """The place before the camera is empty now, or in an image of the tray; or forget what it looks like.

        Images of the tray that show it are thrown out.
        """
        if given.forget:
            self._empty.forget()
        else:
            image = self.bench.newest() if given.name is None else self.tray.image(given.name)
            self._empty.keep(image)
            draft = self.drafts.draft
            kept = set(self.tray.names) - set(draft.thrown_out)
            self.drafts.throw_out(self._empty.shown_in(kept, self.tray, draft), is_out=True)
        self._end_trial()
        self.bench.select_again()

    def _take(self, _: NothingMore) -> None:
        """The next frame shows a part, as if the line had triggered."""
        self.bench.take_one()

    def _collect(self, given: SwitchStep) -> None:
        """Begin or end collecting."""
        self._end_trial()
        self.bench.collect(is_on=given.on)
        if not given.on:
            self._teach_if(lambda images: images != self.teaching.images_tried)

    def _from_archive(self, _: NothingMore) -> None:
        """Put good parts that the station has kept into the tray, the newest ones."""
        take_kept_parts(self._archive, self.tray)

    def _throw_out(self, given: ThrowOutStep) -> None:
        """Leave an image of the tray out, or take it back."""
        self.tray.check(given.name)
        self.drafts.throw_out([given.name], is_out=given.out)

    def _teach(self, given: TeachStep) -> None:
        """Teach the images of the tray, or cancel that."""
        if given.cancel:
            self.teaching.cancel()
            return
        self.teaching.check()
        if given.false_reject_rate is not None:
            self.drafts.change(false_reject_rate=given.false_reject_rate)
        self.teaching.start()

    def _test(self, given: SwitchStep) -> None:
        """Begin or end the trial."""
        trial = Trial(self._station()) if given.on else None
        if trial is not None:
            self.bench.collect(is_on=False)
            self._has_tested = True
        self.bench.trial = trial

    def _wrong(self, given: WrongStep) -> None:
        """A verdict of the trial was wrong: a good part goes to the tray, a defect is kept for later."""
        trial = self.bench.trial
        if trial is None:
            raise SetupError(what="the trial is over", remedy="start it again")
        frame = trial.frame(given.id)
        verdict = trial.note_wrong(given.id)
        if verdict == "defect":
            self.tray.add(frame)
        elif verdict:
            Tray(self._folder / "missed").add(frame)

    def _broker(self, given: BrokerStep) -> None:
        """Use this broker and these topic levels."""
        values = self.drafts.values
        decided = {
            "mqtt": mqtt_values(given.mqtt, values.get("mqtt") or {}, self._password),
            "station": merged(values.get("station"), given.station),
        }
        usable(Draft, {**values, **decided}, self._home)  # before the password is written
        if given.mqtt.password:
            write_secret(self._password, given.mqtt.password)
        self.drafts.change(**decided)

    def _try_broker(self) -> None:
        """Try the broker; what came of it is in the state."""
        with self._one_try_at_a_time:
            self._broker_found = {}
            try:
                config = self._station(is_taught=False)
                found = try_access(broker_settings(config), Topics(station_topics(config.station).root))
                self._broker_found = {"isGood": True, "text": found}
            except ShiftwatchError as error:
                self._broker_found = {"isGood": False, "text": error.one_line}

    def _go(self, _: NothingMore) -> None:
        """Write the configuration, put the bundles into their places, and start the station."""
        self._station()  # everything is decided
        web = {
            **(self._before.get("web") or {}),
            "enabled": True,
            "host": self._order.host,
            "port": self._order.port,
            "token_file": self._order.token_file,
        }
        with deploying(self.teaching.bundles(self.drafts.draft), self._home) as bundles:
            values = {**self._values(bundles), "web": web}
            checked(values, self._home)
            kept = write_station(self._config, relative(values, self._home))
        log.info("wrote %s%s", self._config, f"; the one before is {kept}" if kept else "")
        self._is_over = True
        self._end_trial()
        self.bench.collect(is_on=False)
        self._ended()

    def _station(self, *, is_taught: bool = True) -> AgentConfig:
        """The station as it would be now."""
        draft = self.drafts.draft
        if draft.camera is None:
            raise SetupError(what="no camera is chosen yet", remedy="choose one in the first step")
        bundles = self.teaching.bundles(draft) if is_taught else {"": self._folder / "none"}
        return checked({**self._values(bundles), "state_dir": str(self._folder / "trial")}, self._home)

    def _values(self, bundles: Mapping[str, Path]) -> dict[str, Any]:
        empty = self._empty.file if self._empty.is_known else None
        return station_values(self.drafts.values, self._before, bundles, empty)

    def _follow(self, changed: set[str]) -> None:
        if "camera" in changed:
            self._end_trial()
            self.bench.open_again()
        elif changed & {"zones", "trigger"}:
            self._end_trial()
            self.bench.select_again()

    def _teach_while_collecting(self) -> None:
        self._teach_if(lambda images: images >= _TEACH_AGAIN_AT * self.teaching.images_tried)

    def _teach_if(self, is_due: Callable[[int], bool]) -> None:
        images = self.teaching.images
        if images >= LEAST_IMAGES and not self.teaching.is_under_way and is_due(images):
            try:
                self.teaching.start()
            except SetupError as error:
                log.debug("not taught now: %s", error)

    def _renew_trial(self) -> None:
        """Continue the trial with what was taught just now."""
        if self.bench.trial is not None:
            self.bench.trial = None
            with suppress(ShiftwatchError):  # other zones were drawn meanwhile
                self.bench.trial = Trial(self._station())

    def _end_trial(self) -> None:
        self.bench.trial = None
