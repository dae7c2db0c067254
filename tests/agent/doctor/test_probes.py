"""Each probe against what is absent here: a Jetson, cameras, a clock that is not synchronised, a driver that hangs."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.camera.camera_settings import CameraSettings
from agent.doctor import camera_devices, camera_probe, machine, network_probe, software
from agent.doctor.finding import Finding, ok
from agent.doctor.isolation import Check
from agent.doctor.system import output_of
from agent.errors import CameraError
from calibration.deployment.backends import BackendChoice
from calibration.engine.cuda_choice import Binding
from calibration.engine.cuda_driver import CudaDriver, Gpu
from calibration.engine.cuda_pycuda import PyCuda
from calibration.engine.tensorrt_library import Library
from calibration.errors import EngineError, install_extra
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DiskUsage = namedtuple("DiskUsage", "total used free")  # noqa: PYI024 - as shutil has it


def answers(text: str, number: float | None = None) -> Iterator[Finding]:
    sys.stdout.write("a library that talks\n")
    os.write(1, b"and one that does so in C\n")
    yield ok("probe", f"{text} in {os.environ['TMPDIR']}", number=number or 0.0)


def hangs(marker: str) -> Iterator[Finding]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        Path(marker).write_text(f"{child.pid}")
        time.sleep(600)
    yield ok("probe", "never")


def crashes() -> Iterator[Finding]:
    os.kill(os.getpid(), signal.SIGSEGV)
    yield ok("probe", "never")


def fails() -> Iterator[Finding]:
    message = "libGL.so.1: cannot open shared object file"
    raise ImportError(message)
    yield


@pytest.mark.slow
def test_output_of_libraries_does_not_disturb_a_probe_and_nothing_is_left_behind() -> None:
    (finding,) = Check("probe", answers, 30, "").findings(text="well", number=2.5)
    text, _, folder = finding.found.partition(" in ")
    assert (text, finding.level, finding.figures) == ("well", "ok", {"number": 2.5})
    assert not Path(folder).exists()


@pytest.mark.slow
def test_a_probe_that_hangs_is_a_fault_and_is_killed_with_its_children(tmp_path: Path) -> None:
    marker = tmp_path / "child"
    began_s = time.monotonic()
    findings = Check("camera", hangs, 3, "pull its plug").findings(marker=str(marker))
    assert findings == [Finding("camera", "fault", "no answer within 3 s", "pull its plug")]
    assert time.monotonic() - began_s < 10
    until(lambda: not is_alive(int(marker.read_text())))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def shows_an_address() -> Iterator[Finding]:
    raise ValueError("cannot open rtsp://user:hush-hush@10.0.0.5/live?pwd=hush-hush")  # noqa: EM101, TRY003


@pytest.mark.slow
def test_a_crash_shows_no_password() -> None:
    (finding,) = Check("camera", shows_an_address, 30, "").findings()
    assert finding.found.endswith("ValueError: cannot open rtsp://***@10.0.0.5/live?***")


@pytest.mark.slow
def test_a_probe_that_crashes_is_a_fault() -> None:
    (finding,) = Check("GPU", crashes, 30, "restart").findings()
    assert (finding.level, finding.remedy) == ("fault", "restart")
    assert finding.found.startswith("the probe was killed by SIGSEGV")


@pytest.mark.slow
def test_a_probe_that_fails_says_why() -> None:
    (finding,) = Check("OpenCV", fails, 30, "install it again").findings()
    assert finding.found == "the probe ended with exit code 1: ImportError: libGL.so.1: cannot open shared object file"


def test_a_program_that_is_absent_or_fails_has_no_output() -> None:
    assert output_of("no-such-program-anywhere") is None
    assert output_of(sys.executable, "-c", "raise SystemExit(1)") is None
    assert output_of(sys.executable, "-c", "print('yes')") == "yes\n"


BUILD = """
  Video I/O:
    FFMPEG:                      {ffmpeg}
      avcodec:                   YES (62.28.101)
    GStreamer:                   {gstreamer}
    v4l/v4l2:                    {v4l2}
"""


def test_opencv_must_be_able_to_read_streams_and_cameras() -> None:
    full = software.opencv_finding("4.10.0", BUILD.format(ffmpeg="YES", gstreamer="YES (1.20.3)", v4l2="YES (linux)"))
    assert (full.level, full.found) == ("ok", "4.10.0, with FFMPEG, V4L2, GStreamer")
    usual = software.opencv_finding("4.10.0", BUILD.format(ffmpeg="YES", gstreamer="NO", v4l2="YES"))
    assert (usual.level, usual.found) == ("ok", "4.10.0, with FFMPEG, V4L2; without GStreamer")
    poor = software.opencv_finding("4.10.0", BUILD.format(ffmpeg="NO", gstreamer="YES", v4l2="YES"))
    assert (poor.level, poor.found) == ("warning", "4.10.0, with V4L2, GStreamer; without FFMPEG")


def test_a_gpu_is_reported_with_its_properties() -> None:
    finding = software.gpu_finding(CudaDriver((12, 6), (Gpu("Orin", "8.7", 8 * 2**30, integrated=True),)))
    assert finding == ok("NVIDIA GPU", "Orin, compute capability 8.7, 8.0 GiB; driver for CUDA 12.6")


def test_a_gpu_without_a_driver_is_a_warning_and_no_gpu_is_not() -> None:
    error = EngineError(what="no CUDA driver: libcuda.so.1 not found", remedy="install it")
    there = software.no_gpu_finding(error, is_there=True)
    assert (there.level, there.remedy) == ("warning", "install it")
    assert software.no_gpu_finding(error, is_there=False).level == "ok"


@pytest.mark.parametrize(
    ("vendor", "kind", "is_there"),
    [("0x10de", "0x030000", True), ("0x8086", "0x030000", False), ("0x10de", "0x040300", False)],
)
def test_a_graphics_card_is_seen_without_a_driver(tmp_path: Path, vendor: str, kind: str, *, is_there: bool) -> None:
    card = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text(f"{vendor}\n")
    (card / "class").write_text(f"{kind}\n")
    assert software.has_nvidia(tmp_path) is is_there


def test_both_onnx_runtimes_at_once_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.level for finding in software.onnxruntime()] == ["ok"]
    monkeypatch.setattr(software, "is_installed", lambda _: True)
    (finding,) = software.onnxruntime()
    assert finding.level == "warning"
    assert "overwrite each other" in finding.remedy


def test_openvino_is_reported_with_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "library", lambda: SimpleNamespace(__version__="2026.4.1-22982-releases"))
    monkeypatch.setattr(software, "devices", lambda: [("CPU", ["BF16", "WINOGRAD", "FP32"]), ("GPU", ["FP16"])])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert [each.found for each in software.openvino()] == ["2026.4.1, CPU: FP32, BF16; GPU: FP16"]

    def fail() -> None:
        raise EngineError(what="OpenVINO cannot be loaded: libtbb", remedy="install it")

    monkeypatch.setattr(software, "devices", fail)
    (broken,) = software.openvino()
    assert (broken.level, broken.found) == ("warning", "OpenVINO cannot be loaded: libtbb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (absent,) = software.openvino()
    assert absent.level == "ok"
    assert "pip install" in absent.remedy + absent.found


CARD = Gpu("RTX 4000", "8.9", 20 << 30, integrated=False)


def test_tensorrt_is_said_to_be_used_for_which_gpu_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Library, "module", property(lambda library: library.modules[-1]))
    monkeypatch.setattr(software, "packages_distributions", lambda: {"tensorrt_rtx_bindings": ["pip"]})
    monkeypatch.setattr(software, "chosen_binding", lambda: Binding("pip", "pip", PyCuda))
    choice = BackendChoice({"tensorrt": "it is too old", "tensorrt_rtx": None}, named=False)
    finding = software.tensorrt_finding(choice, CARD)
    used = f"TensorRT for RTX {version('pip')}, for RTX 4000, through pip {version('pip')}"
    assert (finding.level, finding.found) == ("ok", f"{used}; TensorRT not used: it is too old")
    assert "shiftwatch-calibrate build --for rtx" in software.tensorrt_finding(choice, None).found


def test_missing_tensorrt_is_a_warning_only_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Library, "module", None)
    monkeypatch.setattr(Binding, "installed", False)
    choice = BackendChoice({"tensorrt": "it is not installed", "tensorrt_rtx": "it is not installed"}, named=False)
    assert software.tensorrt_finding(choice, None) == ok(
        "TensorRT",
        "TensorRT not installed; TensorRT for RTX not installed; neither pycuda nor cuda-bindings; "
        "only useful with an NVIDIA GPU",
    )
    finding = software.tensorrt_finding(choice, CARD)
    assert finding.level == "warning"
    assert install_extra("rtx") in finding.remedy
    assert install_extra("cuda-bindings") in finding.remedy


def test_a_processor_with_more_to_do_than_cores_is_a_warning() -> None:
    assert machine.processor_finding(1.9, 2).level == "ok"
    busy = machine.processor_finding(2.1, 2)
    assert (busy.level, busy.figures) == ("warning", {"load": 2.1})


@pytest.mark.parametrize(("available_mib", "level"), [(4096, "ok"), (300, "warning")])
def test_little_memory_is_a_warning(available_mib: int, level: str) -> None:
    meminfo = (
        f"MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable:    {available_mib * 1024} kB\nHugePages_Total: 0\n"
    )
    finding = machine.memory_finding(meminfo)
    assert (finding.level, finding.figures) == (level, {"available_mib": available_mib})


@pytest.mark.parametrize(("hottest", "level"), [(60500, "ok"), (91000, "warning")])
def test_the_hottest_zone_counts_and_one_without_a_value_is_left_out(tmp_path: Path, hottest: int, level: str) -> None:
    for number, (kind, milli) in enumerate([("CPU-therm", "41000"), ("GPU-therm", str(hottest)), ("PMIC", "")]):
        zone = tmp_path / "sys" / "class" / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(f"{milli}\n")
    finding = machine.temperature_finding(tmp_path)
    assert (finding.level, finding.figures) == (level, {"celsius": hottest / 1000})
    assert "(GPU-therm)" in finding.found
    assert machine.temperature_finding(tmp_path / "none").found == "not reported by this machine"


def test_a_clock_that_is_not_synchronised_is_a_warning() -> None:
    assert machine.clock_finding(2_000).found == "synchronised"
    assert machine.clock_finding(16_000_000).level == "warning"
    assert machine.clock_finding(None).level == "ok"


def test_the_kernels_clock_is_read_and_not_set() -> None:
    assert machine._Timex().modes == 0
    assert machine._Timex.maxerror.offset == 3 * ctypes.sizeof(ctypes.c_long)
    error_us = machine.clock_error_us()
    assert error_us is None or error_us >= 0


@pytest.mark.parametrize(("free_gib", "level"), [(5.0, "ok"), (0.5, "warning"), (0.05, "fault")])
def test_room_on_the_disk_of_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: float, level: str
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> DiskUsage:
        asked.append(folder)
        return DiskUsage(0, 0, int(free_gib * 2**30))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert machine.disk_finding(tmp_path / "not" / "yet").level == level
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_this_user_may_not_write_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    finding = machine.disk_finding(tmp_path / "state")
    assert (finding.level, finding.found) == ("fault", f"this user cannot write to {tmp_path}")


def a_jetson(root: Path, *, gpu_low: int) -> Path:
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1113600\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1728000\n",
        "sys/class/devfreq/17000000.gpu/min_freq": f"{gpu_low}\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
        "sys/class/devfreq/154c0000.nvenc/cur_freq": "1\n",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("gpu_low", "gpu"),
    [(306_000_000, "GPU 1020 MHz, variable from 306 to 1020"), (1_020_000_000, "GPU 1020 MHz, fixed")],
)
def test_a_jetson_reports_its_power_mode_and_clock_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu_low: int, gpu: str
) -> None:
    monkeypatch.setattr(
        machine, "output_of", lambda *command: "NV Power Mode: 15W\n0\n" if command[0] == "nvpmodel" else None
    )
    findings = {finding.name: finding.found for finding in machine.jetson_findings(a_jetson(tmp_path, gpu_low=gpu_low))}
    assert findings == {
        "Jetson": "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 36.4.3",
        "power mode": "15W",
        "clocks": f"CPU 0 1114 MHz, variable from 730 to 1728; {gpu}",
    }


def test_other_machines_have_no_jetson_findings(tmp_path: Path) -> None:
    assert list(machine.jetson_findings(tmp_path)) == []


FORMATS = """ioctl: VIDIOC_ENUM_FMT
	Type: Video Capture

	[0]: 'MJPG' (Motion-JPEG, compressed)
		Size: Discrete 640x480
			Interval: Discrete 0.017s (60.000 fps)
		Size: Discrete 1920x1080
			Interval: Discrete 0.033s (30.000 fps)
			Interval: Discrete 0.200s (5.000 fps)
	[1]: 'YUYV' (YUYV 4:2:2)
		Size: Stepwise 32x32 - 2592x1944 with step 2/2
	[2]: 'RG10' (10-bit Bayer RGRG/GBGB)
"""


def test_formats_are_told_by_their_largest_size() -> None:
    assert camera_devices.formats_in(FORMATS) == ["MJPG 1920x1080 at 30/s", "YUYV 2592x1944", "RG10"]
    assert camera_devices.formats_in("ioctl: VIDIOC_ENUM_FMT\n\tType: Video Capture\n") == []


def a_camera(root: Path, number: int, name: str) -> None:
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / f"video{number}").touch()
    about = root / "sys" / "class" / "video4linux" / f"video{number}"
    about.mkdir(parents=True)
    (about / "name").write_text(f"{name}\n")


def test_cameras_are_listed_by_number_and_nodes_without_pictures_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_camera(tmp_path, 10, "tenth")
    a_camera(tmp_path, 2, "second")
    a_camera(tmp_path, 3, "metadata of the second")
    monkeypatch.setattr(camera_devices, "output_of", lambda *command: "" if command[2].endswith("video3") else FORMATS)
    findings = list(camera_devices.cameras(tmp_path))
    assert [finding.name for finding in findings] == ["/dev/video2", "/dev/video10"]
    assert findings[0].found == "second: MJPG 1920x1080 at 30/s, YUYV 2592x1944, RG10"
    assert {finding.level for finding in findings} == {"ok"}


def test_without_v4l2_ctl_a_camera_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_camera(tmp_path, 0, "HD Webcam")
    monkeypatch.setattr(camera_devices, "output_of", lambda *_: None)
    (finding,) = camera_devices.cameras(tmp_path)
    assert (finding.level, finding.found) == ("ok", "HD Webcam (install v4l-utils to see its formats)")


def test_a_camera_that_this_user_may_not_use_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_camera(tmp_path, 0, "HD Webcam")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    (finding,) = camera_devices.cameras(tmp_path)
    assert (finding.level, finding.remedy) == ("warning", "add the user to the group video")


def test_it_is_reported_that_there_is_no_camera(tmp_path: Path) -> None:
    assert list(camera_devices.cameras(tmp_path)) == [ok("cameras", "none at /dev/video*")]


@pytest.mark.parametrize(("frames_per_s", "level"), [(None, "ok"), (20.0, "ok"), (30.0, "warning")])
def test_a_network_slower_than_the_camera_is_a_warning(frames_per_s: float | None, level: str) -> None:
    finding = network_probe.speed_finding("speed", 10.0, 40.0, frames_per_s)
    assert finding.level == level
    assert finding.figures == {"p50_ms": 10.0, "p99_ms": 40.0}
    assert ("the camera delivers one every 50.0 ms" in finding.found) is (frames_per_s == 20.0)


class Live:
    """A camera that gives so many frames, one every 10 ms, none of which can be decoded."""

    name = "fake"
    live = True
    frames_per_s = 25.0
    refused_settings: Sequence[str] = ("width: asked for 1920, got 1280",)
    is_rescaled = False
    stamp = None

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def open(self) -> None:
        pass

    def grab(self) -> bool:
        time.sleep(0.01)
        self.frames -= 1
        return self.frames >= 0

    def retrieve(self) -> None:
        return None

    def trigger(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_camera_that_delivers_no_frame_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_probe, "_FIRST_FRAME_S", 0.05)
    camera = Live(1000)
    with pytest.raises(CameraError, match="opens, but delivers no frame within"):
        camera_probe._first_frame(camera)
    assert camera.frames > 900


def test_the_rate_of_a_camera_is_measured() -> None:
    assert 5 < camera_probe._grabs_per_s(Live(1000), 0.3) <= 100


def test_some_frames_of_a_live_camera_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, numbers = Live(1000), itertools.count()
    monkeypatch.setattr(camera, "retrieve", lambda: next(numbers))
    monkeypatch.setattr(camera_probe, "_SETTLING_S", 0.0)
    monkeypatch.setattr(camera_probe, "_COUNTING_S", 0.3)
    monkeypatch.setattr(camera_probe, "_KEPT_EVERY_S", 0.1)
    rate, kept = camera_probe._rate(camera, np.zeros((1, 1, 3), np.uint8))
    assert rate <= 100
    assert 2 <= len(kept) <= 4


def test_a_camera_that_stops_while_its_rate_is_measured_is_an_error() -> None:
    with pytest.raises(CameraError, match="fake stops after some frames"):
        camera_probe._grabs_per_s(Live(3), 5.0)


def test_a_refused_camera_setting_is_a_warning_and_another_frame_size_a_fault() -> None:
    settings = CameraSettings(width=1920, height=1080)
    (refused, size) = camera_probe._setting_findings(Live(1), settings, 720, 1280)
    assert (refused.level, refused.found) == ("warning", "not accepted: width: asked for 1920, got 1280")
    assert (size.level, size.found) == ("fault", "its frames have 1280x720 pixels, not 1920x1080, and would be dropped")
    assert [each.level for each in camera_probe._setting_findings(Live(1), settings, 1080, 1920)] == ["warning"]
