"""The one command that passes the tests also checks format, style, types and the direction of imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["ruff format --check .", "ruff check .", "mypy", "lint-imports --no-cache"],
)
def test_the_code_follows_its_conventions(command: str) -> None:
    program, *arguments = command.split()
    result = subprocess.run(  # noqa: S603 - our own tools
        [TOOLS / program, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
