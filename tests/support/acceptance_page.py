"""The page of an acceptance run on a device: one file without scripts, for people who were not there."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from calibration.plain_text import counted
from calibration.workstation.report.html import bullets, page, section, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MIB, _GIB = 1 << 20, 1 << 30


def page_of(result: Mapping[str, Any]) -> str:
    """The page for the content of ``on_device.json``."""
    failed = [check for check in result["checks"] if not check["passed"]]
    title = f"Shiftwatch on this device: {counted(len(failed), 'check') + ' failed' if failed else 'all checks passed'}"
    gpu = result["machine"]["gpu"]
    versions = ((name, escape(known or "not installed")) for name, known in result["packages"].items())
    about = (
        f"{gpu['name']}, compute capability {gpu['compute_capability']}; bundle {result['bundle'][:12]}, "
        f"{result['backbone']}; largest difference allowed of a score: {100 * result['tolerance']:.3g} %"
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(about)}</p>",
        section("Checks", _checks(result["checks"])),
        section("Times", _times(result), "<p>Of single frames: median, and 99th of 100.</p>"),
        *(section(found["name"], table(_library(found))) for found in result["libraries"].values()),
        section("Machine", table(_machine(result["machine"]))),
        section("Packages", table(versions)),
        section("Log", bullets(result["log"])),
    ]
    return page(title, "\n".join(body))


def _checks(checks: Iterable[Mapping[str, Any]]) -> str:
    head = "<tr><th>Library</th><th>Must</th><th>Result</th><th>Found</th></tr>"
    rows = "".join(
        f"<tr><td>{escape(each['library'])}</td><td>{escape(each['check'])}</td>"
        f"<td>{'passed' if each['passed'] else '<strong>FAILED</strong>'}</td><td>{escape(each['found'])}</td></tr>"
        for each in checks
    )
    return _matrix(head, rows)


def _times(result: Mapping[str, Any]) -> str:
    head = "<tr><th>Engine</th><th>CUDA binding</th><th>Buffers</th><th>Median</th><th>99 %</th></tr>"
    rows = (
        [_time_row("ONNX Runtime, processor", "", "", result["onnxruntime_cpu"])] if "onnxruntime_cpu" in result else []
    )
    rows += [
        _time_row(found["name"], binding, kind, measured[kind])
        for found in result["libraries"].values()
        for binding, measured in found.get("bindings", {}).items()
        for kind in ("copied", "mapped")
        if kind in measured
    ]
    return _matrix(head, "".join(rows))


def _matrix(head: str, rows: str) -> str:
    """A table of several columns, which stays one on narrow screens."""
    return f'<table class="matrix"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _time_row(engine: str, binding: str, kind: str, times: Mapping[str, float]) -> str:
    cells = (engine, binding, kind, f"{times['p50_ms']:.3g} ms", f"{times['p99_ms']:.3g} ms")
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _library(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    memory = found.get("build_memory")
    taken = None if memory is None else memory["free_before_bytes"] - memory["free_lowest_bytes"]
    heads = {f"Recalibrated head {number}": found.get(f"head_{number}") for number in (1, 2)}
    lines = {
        "Not run": found.get("not_run"),
        "Version": found.get("version"),
        "Built and loaded in": _seconds(found.get("build_s")),
        "Of that, compiled for this GPU in": _seconds(found.get("compiled_s")),
        "GPU memory taken meanwhile": _mib(taken),
        "Engine file": _mib(found.get("plan_bytes")),
        "GPU memory of one run": _mib(found.get("activation_bytes")),
        **{name: new and f"in {new['s']:g} s, by {new['by']}" for name, new in heads.items()},
        **{f"Loaded with {name} in": _seconds(one["load_s"]) for name, one in found.get("bindings", {}).items()},
        "Compiled kernels, kept": _mib(found.get("kernels_bytes")),
        "Most memory of the process so far": _mib(found.get("peak_resident_bytes")),
    }
    return ((name, escape(line)) for name, line in lines.items() if line is not None)


def _machine(machine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    gpu = machine["gpu"]
    memory = "shared with the processor" if gpu["integrated"] else "its own"
    yield "GPU", f"{escape(gpu['name'])}, {gpu['memory_bytes'] / _GIB:.1f} GiB memory, {memory}"
    names = {"model": "Model", "jetpack": "JetPack", "power_mode": "Power mode", "processor": "Processor"}
    names |= {"cores": "Cores", "system": "System", "python": "Python", "driver_cuda": "Newest CUDA of the driver"}
    for key, name in names.items():
        if machine[key] is not None:
            yield name, escape(str(machine[key]))
    yield "Memory", f"{machine['memory_bytes'] / _GIB:.1f} GiB"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:g} s"


def _mib(size_bytes: int | None) -> str | None:
    if size_bytes is None:
        return None
    return f"{size_bytes / _MIB:,.1f} MiB" if size_bytes < 100 * _MIB else f"{size_bytes / _MIB:,.0f} MiB"
