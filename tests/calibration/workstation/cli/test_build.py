"""``shiftwatch-calibrate build`` as a person meets it, on the fake GPU."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calibration.deployment import backends
from calibration.engine.cuda_driver import CudaDriver
from calibration.engine.tensorrt_library import Library
from calibration.errors import EngineError
from calibration.workstation.cli import build
from tests.support import fake_pycuda, fake_tensorrt, fake_tensorrt_rtx
from tests.support.fake_gpu import DESKTOP, FakeCuda
from tests.support.outcome import assert_refused
from tests.support.real_tensorrt import rtx

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from calibration.bundle.bundle import Bundle
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Any:  # noqa: ANN401
    """A machine with pycuda and TensorRT."""
    fake_pycuda.install(monkeypatch, cuda)
    return fake_tensorrt.install(monkeypatch, cuda)


def test_build_makes_the_engine_once_and_proves_it(command: Command, device: Any, bundle: Bundle) -> None:  # noqa: ANN401
    first = command("build", bundle.path)
    assert first.code == 0
    assert f"engine in {bundle.path}.tensorrt: built (no engine in" in first.words
    assert "golden frames score as calibrated" in first.words
    assert "Building" in first.err
    second = command("build", bundle.path)
    assert "kept from before" in second.words
    assert len(device.builds) == 1


def test_all_options_reach_the_build(command: Command, device: Any, bundle: Bundle) -> None:  # noqa: ANN401
    options = "--workspace-mib 256 --tactic-memory-mib 512 --optimisation-level 1"
    assert command("build", bundle.path, *options.split()).code == 0
    record = json.loads((Path(f"{bundle.path}.tensorrt") / "engine.json").read_text())
    assert record["key"]["options"] == {"workspace_mib": 256, "tactic_memory_mib": 512, "optimisation_level": 1}
    assert device.builds[0].builder_optimization_level == 1


def test_an_engine_that_scores_otherwise_is_refused(command: Command, device: Any, bundle: Bundle) -> None:  # noqa: ANN401
    device.roundings = [1.1]
    assert_refused(command("build", bundle.path), r"tensorrt on this device scores golden frame \d", "do not inspect")


def test_build_without_a_gpu_says_so_and_what_can_be_built(
    command: Command, learnt: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pycuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    outcome = command("build", learnt.path)
    assert_refused(outcome, "neither of the Python packages pycuda and cuda-bindings", "build here with --for rtx")


def test_an_engine_for_rtx_is_built_without_a_gpu_and_checked_by_verify(
    command: Command, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = rtx().__version__
    first = command("build", bundle.path, "--for", "rtx")
    assert first.code == 0
    assert re.search(rf"engine in {bundle.path}\.tensorrt_rtx: built \(no engine in .*\), 3\.\d MB in \d", first.words)
    assert (
        f"for all GPUs of compute capability 8.0, 8.6, 8.9, 12.0, 12.1, with TensorRT for RTX {version}" in first.words
    )
    assert "checks the golden frames at its first start" in first.words
    assert "Building" in first.err
    assert "kept from before" in command("build", bundle.path, "--for", "rtx").words
    two = command("build", bundle.path, *["--for", "rtx", "--compute-capability", "8.9", "--compute-capability", "8.6"])
    assert "built (compute_capability was any, is 8.6, 8.9)" in two.words
    verified = command("verify", bundle.path)
    assert verified.code == 0
    made = f"engine of TensorRT for RTX {version} for compute capability 8.6, 8.9; intact, of this network"
    assert f"{bundle.path}.tensorrt_rtx: {made}" in verified.words

    def broken(_: Library) -> ModuleType:
        raise EngineError(what="one of its own libraries is missing", remedy="install it again")

    monkeypatch.setattr(Library, "imported", broken)
    assert made in command("verify", bundle.path).words


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / "engine.plan").write_bytes(b"half"), r"engine\.plan is damaged"),
        (lambda folder: (folder / "engine.json").write_bytes(b""), "cannot be read"),
        (lambda folder: (folder / "engine.json").unlink(), "no engine in"),
        (lambda folder: foreign(folder / "engine.json"), r"network was 0000000000.*\.\.\., is "),
    ],
)
def test_verify_refuses_an_engine_that_is_damaged_or_of_another_bundle(
    command: Command, bundle: Bundle, damage: Callable[[Path], object], what: str
) -> None:
    rtx()
    command("build", bundle.path, "--for", "rtx")
    damage(Path(f"{bundle.path}.tensorrt_rtx"))
    again = f"build it again: shiftwatch-calibrate build {bundle.path.name} --for rtx"
    assert_refused(command("verify", bundle.path), f"engine of TensorRT for RTX cannot be used: .*{what}", again)


def foreign(record: Path) -> None:
    """As if copied from another bundle."""
    content = json.loads(record.read_text())
    content["key"]["network"] = "0" * 64
    record.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        ("--for rtx --compute-capability 7.5", "cannot build for compute capability 7.5, which is Turing", "TensorRT"),
        ("--for rtx --compute-capability 8.6 --compute-capability 9.0", "9.0, .* it can for 8.0, 8.6, 8.9", "TensorRT"),
        ("--for rtx --compute-capability ampere", "compute capability ampere; it can for", "shiftwatch-agent doctor"),
        ("--for rtx --workspace-mib 64 --optimisation-level 0", "--workspace-mib, --optimisation-level: ", "leave it"),
        ("--compute-capability 8.6", "--compute-capability is only for --for rtx", "add --for rtx"),
    ],
)
def test_what_cannot_be_built_is_refused_before_the_build(
    command: Command, bundle: Bundle, options: str, what: str, remedy: str
) -> None:
    assert_refused(command("build", bundle.path, *options.split()), what, remedy)
    assert not list(bundle.path.parent.glob("*.tensorrt*"))


@pytest.mark.parametrize(("capability", "checked"), [("8.9", True), ("8.6", False)])
def test_an_engine_for_rtx_is_checked_where_the_gpu_can_run_it(  # noqa: PLR0913
    command: Command,
    bundle: Bundle,
    cuda: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    *,
    checked: bool,
) -> None:
    fake_pycuda.install(monkeypatch, cuda)
    fake_tensorrt_rtx.install(monkeypatch, cuda)
    for module in (backends, build):
        monkeypatch.setattr(module, "cuda_driver", lambda: CudaDriver((12, 8), (DESKTOP,)))
    outcome = command("build", bundle.path, "--for", "rtx", "--compute-capability", capability)
    assert outcome.code == 0
    assert ("golden frames score as calibrated" in outcome.words) == checked
    assert ("no GPU here can run it" in outcome.words) != checked
    assert (Path(f"{bundle.path}.tensorrt_rtx") / "kernels.cache").exists() == checked
