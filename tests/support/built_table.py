"""The table of all networks that NVIDIA's parser and builder took, at the end of all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_PROPERTY = "TensorRT"  # of a test's report, which comes from whatever process the test ran in
_HEADINGS = ["network", "layers", "parsed", "built", "plan", "FP16: layers", "parsed", "built", "plan"]


def add_row(request: pytest.FixtureRequest, cells: list[str]) -> None:
    """Add a network; the row is shown if the test passes."""
    request.node.user_properties.append((_PROPERTY, cells))


def write(reporter: pytest.TerminalReporter) -> None:
    """Write the table, if there are rows."""
    passed: list[pytest.TestReport] = reporter.getreports("passed")
    properties: list[tuple[str, Any]] = [each for report in passed for each in report.user_properties]
    rows: list[list[str]] = [cells for name, cells in properties if name == _PROPERTY]
    if rows:
        table = [_HEADINGS, *sorted(rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        reporter.section(f"TensorRT for RTX parsed and built {len(rows)} networks")
        for first, *others in table:
            padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            reporter.line("  ".join([first.ljust(widths[0]), *padded]))
