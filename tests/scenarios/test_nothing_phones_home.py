"""Agent and calibration in an empty network with an empty home: they leave no file there, and look nothing up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.support import no_network
from tests.support.stations import closed_port, good_parts, write_config, write_pictures
from tests.support.washers import SIDE, save, washer

if TYPE_CHECKING:
    from pathlib import Path

_NAMESPACE = ("unshare", "--map-root-user", "--net", "--mount")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    if shutil.which(_NAMESPACE[0]) is None or subprocess.run([*_NAMESPACE, "true"], check=False).returncode:  # noqa: S603 - fixed words
        pytest.skip("this machine lets this user make no network of its own")
    home = tmp_path / "home"
    home.mkdir()
    return home


def run_without_network(home: Path, *commands: list[str]) -> list[str]:
    """What the commands have printed; each must succeed, and none may look up a name."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "TMPDIR"}}
    ended = subprocess.run(  # noqa: S603 - our own program
        [*_NAMESPACE, sys.executable, no_network.__file__],
        input=json.dumps(list(commands)),
        env={**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ended.stdout)
    assert set(found["codes"]) == {0}, found["printed"]
    assert found["names"] == []
    printed: list[str] = found["printed"]
    return printed


def python(module: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", f"from {module} import main; main()", *map(str, arguments)]


def test_a_look_up_would_be_seen(home: Path) -> None:
    look_up = "import socket\ntry: socket.getaddrinfo('telemetry.example.com', 443)\nexcept OSError: pass"
    with pytest.raises(AssertionError, match="telemetry"):
        run_without_network(home, [sys.executable, "-c", look_up])


@pytest.mark.slow
def test_calibration_leaves_nothing_in_the_home_and_looks_nothing_up(home: Path, tmp_path: Path) -> None:
    good = save(tmp_path / "good", [washer(number) for number in range(24)])
    save(tmp_path / "set" / "good", [washer(number) for number in range(100, 104)])
    save(tmp_path / "set" / "scratch", [washer(number, scratched=True) for number in range(4)])
    command, bundle = "calibration.workstation.cli.main", tmp_path / "bundle"
    results = ("--scores", tmp_path / "scores.csv", "--plots", tmp_path / "plots")
    run_without_network(
        home,
        python(command, "fit", good, "-o", bundle, "--size", str(SIDE)),
        python(command, "evaluate", bundle, tmp_path / "set", *results),
        python(command, "report", bundle, "-o", tmp_path / "report.html"),
        [sys.executable, "-c", f"import calibration; calibration.open_bundle({str(bundle)!r}); import onnxruntime"],
    )
    assert (tmp_path / "plots" / "roc.png").exists()
    assert list(home.rglob("*")) == []


@pytest.mark.slow
def test_weights_of_timm_are_not_looked_up_unless_they_are_asked_for(home: Path) -> None:
    pytest.importorskip("timm")
    code = "import calibration.workstation.torch_models.timm_backbone, torch, timm, huggingface_hub.constants as c; "
    run_without_network(home, [sys.executable, "-c", f"{code} assert c.HF_HUB_DISABLE_TELEMETRY"])
    assert list(home.rglob("*")) == []


@pytest.mark.slow
def test_a_station_leaves_nothing_in_the_home_and_looks_nothing_up(home: Path, bundle: Path, tmp_path: Path) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(20))
    web = {"enabled": True, "port": closed_port()}
    # OpenVINO would report that it is imported.
    engine = {"threads": 1, "backend": "onnxruntime" if find_spec("openvino") is None else "openvino"}
    config = write_config(tmp_path, bundle, parts, closed_port(), web=web, engine=engine)
    printed = run_without_network(
        home,
        python("agent.cli", "run", "--config", config),
        python("agent.cli", "archive", "list", "--config", config),
        [*python("agent.cli", "config", config)],
    )
    assert f"the network runs on {engine['backend']}-cpu" in printed[0]
    assert "20 frames captured" in printed[0]
    assert list(home.rglob("*")) == []
