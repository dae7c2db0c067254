"""The README says what is true: its commands run, its links lead somewhere, its reference is that of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from agent.cli import app as agent_app
from agent.config.model import reference
from agent.demo.conveyor import parts, write_video
from agent.messages.records import ResultCode
from calibration.workstation.cli.main import app as calibrate_app

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()
COMMANDS = [block.strip().splitlines() for block in re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
TAUGHT_PARTS = 200  # as many as the rate in the README needs
OPTIONS_OF_OTHERS = {"--system-site-packages", "--quiet", "--editable", "--system", "--now"}


def test_the_first_two_commands_are_one_line_each_and_make_their_own_environment() -> None:
    demo, tests = COMMANDS[:2]
    assert [len(demo), len(tests)] == [1, 1]
    assert all(line.startswith("python3 -m venv .venv && ") for line in (*demo, *tests))
    assert demo[0].endswith("shiftwatch-agent demo")
    assert tests[0].endswith("pytest")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after the first command."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / "shiftwatch-demo").mkdir()
    write_video(folder / "shiftwatch-demo" / "taught.avi", parts(TAUGHT_PARTS, seed=1), 8.0)
    return folder


def test_every_later_command_runs(clone: Path) -> None:
    for line in (line for block in COMMANDS[2:] for line in block):
        environment = {**os.environ, "COLUMNS": "100"}
        result = subprocess.run(  # noqa: S603 - the README's own commands
            [shutil.which("bash") or "bash", "-c", line],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
    assert (clone / "flanges" / "network.onnx").is_file()
    assert (clone / "station.yaml").is_file()


def test_the_configuration_reference_is_that_of_the_code() -> None:
    section = re.search(r"<!-- configuration reference.*?-->\n(.*?)<!-- end", README, re.DOTALL)
    assert section is not None
    assert section[1] == reference()


def test_every_result_code_is_explained() -> None:
    line = next(line for line in README.splitlines() if line.startswith("- `resultCode`"))
    assert [int(number) for number in re.findall(r"[:,] (\d+) ", line)] == [code.value for code in ResultCode]


def every_command(command: Any) -> Iterator[Any]:  # noqa: ANN401 - whichever click typer brings
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from every_command(inner)


def test_every_option_named_is_that_of_a_command() -> None:
    commands = [command for app in (agent_app, calibrate_app) for command in every_command(get_command(app))]
    known = {option for command in commands for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README)) - OPTIONS_OF_OTHERS
    assert len(named) > 10
    assert named - known == set()


def test_every_link_inside_the_project_leads_to_a_file() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    assert len(links) > 3
    assert [link for link in links if not (PROJECT / link).exists()] == []
