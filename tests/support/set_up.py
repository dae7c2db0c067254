"""A set-up for tests: a folder with images in the tray, something taught, and its steps; or its page in a browser."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from agent.setup.order import SetupOrder
from agent.setup.routes import SetupRoutes
from agent.setup.teaching import FACTS
from agent.setup.teaching_main import facts_of
from agent.web.requests import server_of
from agent.web.token_auth import TokenAuth
from calibration.bundle.bundle import open_bundle
from tests.support.pages import TOKEN, Client
from tests.support.stations import REGION, good_parts, until, write_pictures
from tests.support.washers import save

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from agent.setup.steps import Steps
    from calibration.imaging.preprocess import Image

ROI = [REGION.x, REGION.y, REGION.width, REGION.height]
QUICK_ENGINE = {"threads": 1, "backend": "onnxruntime"}  # `auto` would measure first
CAMERA_PER_S = 50


def order_for(home: Path, first: Mapping[str, Any] | None = None) -> SetupOrder:
    return SetupOrder(
        config=str(home / "station.yaml"),
        token=TOKEN,
        token_file=str(home / "web-token"),
        host="127.0.0.1",
        port=8480,
        names=["line-box"],
        first=dict(first or {}),
    )


def belt(home: Path, images: Sequence[Image] | None = None) -> dict[str, Any]:
    """A folder that stands for a camera, as the first keys of a draft."""
    folder = write_pictures(home / "belt", good_parts(5) if images is None else images)
    return {"camera": {"source": str(folder), "frames_per_s": CAMERA_PER_S}}


def fill_tray(home: Path, images: Sequence[Image]) -> list[str]:
    """Images of good parts, as if they had been collected; returns their names."""
    return sorted(path.name for path in save(home / "setup" / "good", images).iterdir())


def configure(home: Path, **sections: object) -> dict[str, Any]:
    """A configuration that there was before, whose engine starts at once."""
    values = {"bundle": "./bundle", "camera": {"source": 0}, "engine": QUICK_ENGINE, **sections}
    (home / "station.yaml").write_text(yaml.safe_dump(values))
    return values


def put_taught(home: Path, bundles: Mapping[str, Path], number: int = 1) -> dict[str, Any]:
    """Bundles as a teaching leaves them; returns the keys of the draft that go with them."""
    folder = home / "setup" / "taught" / str(number)
    folder.mkdir(parents=True)
    facts = []
    for zone, path in bundles.items():
        shutil.copytree(path, folder / (zone or "bundle"))
        facts.append({"zone": zone, "region": ROI, "ignored": [], **facts_of(open_bundle(path))})
    (folder / FACTS).write_text(json.dumps(facts))
    return {"taught": number, "zones": [{"name": zone or None, "region": ROI} for zone in bundles]}


@contextmanager
def page_of(steps: Steps) -> Iterator[Client]:
    """The page of a set-up, served by a thread of this process."""
    server = server_of(SetupRoutes(steps, TokenAuth(TOKEN)).app(["line-box"]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        until(lambda: server.started)
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def everything_in(folder: Path) -> dict[str, bytes]:
    """Content of all files of a folder, to see that nothing has changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
