"""Every name that the source uses exists in NVIDIA's own bindings: TensorRT from 10.3 to 11.4, TensorRT for RTX."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.real_tensorrt import rtx
from tests.support.stub_library import stub_library

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parents[3]
SUPPORT = Path(__file__).resolve().parents[2] / "support"
# Version -> platform tag of its wheels; 10.3 is JetPack 6, 10.16 is JetPack 7.2.
WHEELS = {
    "10.3.0": "manylinux_2_17_x86_64",
    "10.13.3.9": "manylinux_2_28_x86_64",
    "10.16.1.11": "manylinux_2_28_x86_64",
    "11.0.0.114": "manylinux_2_28_x86_64",
    "11.4.0.106": "manylinux_2_28_x86_64",
}
RTX = "TensorRT for RTX"
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "createInferRefitter_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    *("getPluginRegistry", "getBuilderPluginRegistry", "initLibNvInferPlugins"),
)

pytestmark = pytest.mark.slow
TENSORRT = frozenset(WHEELS)
ALL = TENSORRT | {RTX}
NONE: frozenset[str] = frozenset()
ELEVEN = frozenset(version for version in WHEELS if version.startswith("11"))
AHEAD = "def f(library: Library, config: trt.IBuilderConfig, network: trt.INetworkDefinition):\n    "
# Source -> the versions in which it must be found out, and with which words.
PLANTED = {
    "flag": (
        "def f(config: trt.IBuilderConfig, tensorrt):\n    config.set_flag(tensorrt.BuilderFlag.FP16)",
        ELEVEN | {RTX},
        "no BuilderFlag.FP16",
    ),
    "level": (
        (
            "def f(config: trt.IBuilderConfig):\n"
            "    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"
        ),
        frozenset({"10.3.0"}),
        "no HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
    ),
    "returned": (
        (
            "def f(runtime: trt.Runtime, plan: bytes):\n"
            "    return runtime.deserialize_cuda_engine(plan).device_memory_size"
        ),
        ELEVEN | {RTX},
        "no ICudaEngine.device_memory_size",
    ),
    "keyword": (
        (
            "class A:\n    def __init__(self, context: trt.IExecutionContext):\n"
            "        self.context: trt.IExecutionContext = context\n"
            "    def f(self):\n        return self.context.execute_async_v3(stream=0)"
        ),
        ALL,
        "does not fit",
    ),
    "too many": ("def f(builder: trt.Builder):\n    return builder.create_network(1, 2)", ALL, "does not fit"),
    "override": (
        "class M(trt.IProgressMonitor):\n    def step_complete(self, phase_name):\n        return True",
        ALL,
        "IProgressMonitor has no step_complete",
    ),
    "read-only": ("def f(engine: trt.ICudaEngine):\n    engine.num_io_tensors = 1", ALL, "cannot be set"),
    "from import": ("from tensorrt import Builder", ALL, "import tensorrt as a module"),
    "unknown class": (
        "def f(parser: trt.OnnxParser):\n    return [parser.get_error(n).desc() for n in range(parser.num_errors)]",
        ALL,
        r"\.desc of a value whose class cannot be told",
    ),
    "in a list": (
        "def f(builder: trt.Builder):\n    both = [builder, builder]\n    both[0].anything()",
        ALL,
        r"\.anything of a value whose class cannot be told",
    ),
    "passed on": (
        "def g(it):\n    it.anything()\ndef f(builder: trt.Builder):\n    g(builder)",
        ALL,
        "annotate it of g",
    ),
    "kept": (
        (
            "class A:\n    def __init__(self, builder: trt.Builder):\n        self.b = builder\n"
            "    def f(self):\n        self.b.anything()"
        ),
        ALL,
        "annotate self.b",
    ),
    "for RTX everywhere": (AHEAD + "config.num_compute_capabilities = 1", TENSORRT, "no IBuilderConfig.num_compute"),
    "for RTX alone": (AHEAD + "if library.builds_ahead:\n        config.num_compute_capabilities = 1", NONE, ""),
    "for the wrong one": (
        AHEAD + "if not library.builds_ahead:\n        config.num_compute_capabilities = 1",
        TENSORRT,
        "no IBuilderConfig.num_compute",
    ),
    "behind a return": (
        AHEAD + "if not library.builds_ahead:\n        return\n    config.num_compute_capabilities = 1\n    config.x()",
        frozenset({RTX}),
        r"no IBuilderConfig\.x",
    ),
    "called for RTX alone": (
        AHEAD + "return g(config) if library.builds_ahead else None\n"
        "def g(config: trt.IBuilderConfig):\n    config.num_compute_capabilities = 1\n    config.x()",
        frozenset({RTX}),
        r"no IBuilderConfig\.x",
    ),
    "called for both": (
        AHEAD + "if library.builds_ahead:\n        g(config)\n    return g(config)\n"
        "def g(config: trt.IBuilderConfig):\n    config.num_compute_capabilities = 1",
        TENSORRT,
        "no IBuilderConfig.num_compute",
    ),
}


def source_files() -> dict[str, str]:
    """Every file of ours that may use TensorRT."""
    paths = [*PROJECT.glob("calibration/**/*.py"), *PROJECT.glob("agent/**/*.py"), PROJECT / "tests" / "on_device.py"]
    texts = {str(path.relative_to(PROJECT)): path.read_text() for path in paths}
    return {name: text for name, text in texts.items() if re.search(r"\b(tensorrt|trt)\b", text)}


def impossible(reason: str) -> None:
    """This cannot be tested here; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def download(folder: Path, version: str, tag: str) -> Path:
    """The bindings of one version, unpacked."""
    unpacked = folder / f"{version}-cp{sys.version_info.major}{sys.version_info.minor}"
    if unpacked.is_dir():
        return unpacked
    command = f"pip download --quiet --no-deps --only-binary=:all: --platform {tag} --dest {folder}"
    subprocess.run(  # noqa: S603 - the package index's own client
        [sys.executable, "-m", *command.split(), f"tensorrt-cu12-bindings=={version}"],
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = folder.glob(f"tensorrt_cu12_bindings-{version}-cp{sys.version_info.major}{sys.version_info.minor}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked.with_name(f"part-{unpacked.name}"))
    return unpacked.with_name(f"part-{unpacked.name}").rename(unpacked)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Version -> its bindings: from the package index or the folder SHIFTWATCH_WHEELS; of RTX, those installed."""
    if platform.machine() != "x86_64":
        impossible("NVIDIA has bindings of all these versions for x86-64 only")
    installed = Path(str(rtx().__file__)).parents[1]
    folder = Path(os.environ.get("SHIFTWATCH_WHEELS") or tmp_path_factory.mktemp("wheels"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ThreadPoolExecutor(len(WHEELS)) as threads:
            found = threads.map(lambda item: download(folder, *item), WHEELS.items())
            return {**dict(zip(WHEELS, found, strict=True)), RTX: installed}
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["pip does not say why"])[-1]
        impossible(f"cannot download NVIDIA's bindings: {reason}")
        raise


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Version -> folder of the libraries that its bindings want, with nothing in them; those of RTX have real ones."""
    folders = {version: tmp_path_factory.mktemp("stubs") for version in (*WHEELS, RTX)}
    for version in WHEELS:
        folder = folders[version]
        for library in LIBRARIES:
            soname = f"{library}.so.{version.partition('.')[0]}"
            (folder / soname).write_bytes(stub_library(soname, FUNCTIONS, platform.machine()))
    return folders


@pytest.fixture(scope="module")
def findings(wheels: dict[str, Path], stubs: dict[str, Path]) -> dict[str, Mapping[str, Any]]:
    """Version -> what was found with it, each in a process of its own."""
    jobs = {"ours": source_files(), **{name: {"planted.py": text} for name, (text, _, _) in PLANTED.items()}}
    fake = (SUPPORT / "fake_tensorrt.py").read_text()
    request = json.dumps({"jobs": jobs, "fakes": {"ours": fake, "planted": "class Builder:\n    def mend(self): ..."}})

    def find(version: str) -> Mapping[str, Any]:
        ended = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, SUPPORT / "tensorrt_names.py", wheels[version], stubs[version]],
            input=request,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        result: Mapping[str, Any] = json.loads(ended.stdout)
        return result

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(wheels, threads.map(find, wheels), strict=True))


@pytest.mark.parametrize("version", [*WHEELS, RTX])
def test_all_that_we_use_is_in_tensorrt(findings: dict[str, Mapping[str, Any]], version: str) -> None:
    found = findings[version]
    assert found["version"] == (rtx().__version__ if version == RTX else version)
    ours = found["jobs"]["ours"]
    assert ours["problems"] == []
    # The reader must have read: these are used on every path,
    assert {
        "Builder.build_serialized_network",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "IExecutionContext.execute_async_v3",
        "Refitter.set_named_weights",
        "IProgressMonitor.step_complete",
    } <= set(ours["uses"])
    # and these for one of the libraries alone.
    of_tensorrt = {"IBuilderConfig.set_timing_cache", "BuilderFlag.REFIT_INDIVIDUAL"}
    of_rtx = {"IBuilderConfig.set_compute_capability", "IRuntimeConfig.set_runtime_cache"}
    assert (of_tensorrt | of_rtx) & set(ours["uses"]) == (of_rtx if version == RTX else of_tensorrt)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_use_is_found_out_where_it_does_not_exist(findings: dict[str, Mapping[str, Any]], name: str) -> None:
    _, versions, words = PLANTED[name]
    for version, found in findings.items():
        problems = found["jobs"][name]["problems"]
        assert bool(problems) == (version in versions), (version, problems)
        assert all(re.search(words, problem) for problem in problems)


def test_the_fake_of_the_other_tests_has_nothing_that_tensorrt_has_not(
    findings: dict[str, Mapping[str, Any]],
) -> None:
    for found in findings.values():
        assert found["fakes"]["ours"] == []
        assert found["fakes"]["planted"] == ["there is no Builder.mend"]


@pytest.mark.parametrize("version", WHEELS)
def test_logger_monitor_weights_and_refusals_work_on_the_real_bindings(
    wheels: dict[str, Path], stubs: dict[str, Path], version: str
) -> None:
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, SUPPORT / "tensorrt_objects.py", wheels[version], stubs[version]],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""


def test_the_source_never_names_what_is_gone_and_never_stores_an_enum_as_a_number() -> None:
    for name, text in source_files().items():
        if "import tensorrt" in text:
            assert not re.search(r"EXPLICIT_BATCH|BuilderFlag\.(FP16|BF16|INT8)|device_memory_size\b", text), name
            numbers = re.findall(r"\bint\((?:trt|tensorrt)\.\w+\.(\w+)\)", text)
            assert set(numbers) <= {"STRONGLY_TYPED"}, name
