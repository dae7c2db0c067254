"""The READMEs say what is true: commands run, links lead somewhere, references are those of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import pytest
from typer.main import get_command

from agent.cli import app as agent_app
from agent.config.model import reference
from agent.demo.broker import embedded_broker
from agent.demo.conveyor import parts, write_video
from agent.demo.run import Outcome, print_outcome
from calibration.workstation.cli.main import app as calibrate_app

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[1]
README = PROJECT / "README.md"
READMES = [
    README,
    PROJECT / "calibration" / "README.md",
    PROJECT / "agent" / "README.md",
    *sorted((PROJECT / "agent").glob("*/README.md")),
    PROJECT / "systemd" / "README.md",
]
DOCUMENTS = [
    *READMES,
    *(PROJECT / name for name in ("DESIGN.md", "CHANGELOG.md")),
    *sorted((PROJECT / ".github").glob("*.md")),
    *sorted(path for top in ("agent", "calibration") for path in (PROJECT / top).rglob("DESIGN.md")),
    PROJECT / "tests" / "benchmarks" / "README.md",
    PROJECT / "tests" / "ON_DEVICE.md",
]
LONGEST_README, LONGEST_DESIGN, LONGEST_LINE = 150, 200, 120
LARGEST_IMAGE_BYTES = 150 * 1024
CALIBRATION_PARTS, INSPECTED_PARTS = 200, 12
OPTIONS_OF_OTHERS = {
    "--all-files",
    "--editable",
    "--help",
    "--no-cache",
    "--now",
    "--quiet",
    "--system",
    "--system-site-packages",
}


def commands_in(path: Path) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [block.strip().splitlines() for block in blocks]


def test_the_map_of_the_design_is_short() -> None:
    assert len((PROJECT / "DESIGN.md").read_text().splitlines()) <= LONGEST_DESIGN


def test_images_of_the_first_page_load_fast() -> None:
    images = list((PROJECT / ".github" / "images").iterdir())
    assert [image.name for image in images if image.stat().st_size > LARGEST_IMAGE_BYTES] == []
    assert [image.name for image in images if f"(.github/images/{image.name})" not in README.read_text()] == []


def test_the_demo_ends_as_the_first_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(
        seen=320,
        planted={"scratch": 8, "dent": 7, "missing hole": 7, "stain": 7},
        found={"scratch": 8, "dent": 7, "missing hole": 7, "stain": 7},
        false_alarms=1,
        frames_per_s=8.0,
        p50_ms=23.8,
        p99_ms=32.5,
        peak_memory_mib=214.0,
        pictures=Path("shiftwatch-demo/state/archive"),
    )
    print_outcome(outcome)
    assert f"```text\n{capsys.readouterr().out}```\n" in README.read_text()


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_the_first_two_commands_are_one_line_each_and_make_their_own_environment() -> None:
    demo, tests = commands_in(README)[:2]
    assert [len(demo), len(tests)] == [1, 1]
    assert all(line.startswith("python3 -m venv .venv && ") for line in (*demo, *tests))
    assert demo[0].endswith("shiftwatch-agent demo")
    assert tests[0].endswith("pytest")


def test_the_first_page_is_short() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= LONGEST_README
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_lines_of_prose_are_not_long(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [line for line in lines if len(line) > LONGEST_LINE and not line.startswith("|")] == []


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after the first command."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / "shiftwatch-demo").mkdir()
    write_video(folder / "shiftwatch-demo" / "taught.avi", parts(CALIBRATION_PARTS, seed=1), 8.0)
    write_video(folder / "shiftwatch-demo" / "watched.avi", parts(INSPECTED_PARTS, seed=2), 8.0)
    return folder


@pytest.mark.slow
def test_every_later_command_runs(clone: Path) -> None:
    lines = [line for block in commands_in(README)[2:] for line in block]
    lines += [line for path in READMES[1:] for block in commands_in(path) for line in block]
    with embedded_broker() as port:
        for line in lines:
            values = f"mqtt.host=127.0.0.1 mqtt.port={port} mqtt.protocol=3.1.1"
            run(line.replace(" > station.yaml", f" {values} > station.yaml"), clone)
    assert (clone / "bundle" / "network.onnx").is_file()
    assert (clone / "bundle.report.html").is_file()
    assert (clone / "state" / "archive").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("path", [README, PROJECT / "calibration" / "README.md"], ids=name_of)
def test_the_python_example_runs(path: Path, tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "photos" / "good").mkdir(parents=True)
    for number, part in enumerate(parts(INSPECTED_PARTS, seed=3)):
        assert cv2.imwrite(str(tmp_path / "photos" / "good" / f"{number}.png"), part.image)
        assert cv2.imwrite(str(tmp_path / "photo.png"), part.image)
    (tmp_path / "example.py").write_text(program)
    run(f"{sys.executable} example.py", tmp_path)


def run(line: str, folder: Path) -> None:
    result = subprocess.run(  # noqa: S603 - the READMEs' own commands
        [shutil.which("bash") or "bash", "-c", line],
        cwd=folder,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"


def test_the_configuration_reference_is_that_of_the_code() -> None:
    text = (PROJECT / "agent" / "config" / "README.md").read_text()
    section = re.search(r"<!-- configuration reference.*?-->\n(.*?)<!-- end", text, re.DOTALL)
    assert section is not None
    assert section[1] == reference()


def every_command(command: Any) -> Iterator[Any]:  # noqa: ANN401 - whichever click typer brings
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from every_command(inner)


def test_every_option_named_is_that_of_a_command() -> None:
    commands = [command for app in (agent_app, calibrate_app) for command in every_command(get_command(app))]
    known = {option for command in commands for parameter in command.params for option in parameter.opts}
    named = {
        option for path in READMES for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", path.read_text())
    } - OPTIONS_OF_OTHERS
    assert len(named) > 10
    assert named - known == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_adding_an_extra_replaces_no_editable_install_and_no_copy_of_a_service(path: Path) -> None:
    ways = re.findall(r"pip install ([^`\n]*)'\.\[", path.read_text())
    is_editable = path != PROJECT / "systemd" / "README.md"  # a service may not see the clone
    assert [way for way in ways if ("--editable" in way) != is_editable] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_inside_the_project_leads_to_a_file_and_a_heading(path: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)\s]+)\)", path.read_text())
    assert [link for link in links if not leads_somewhere(path, link)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_python_file_named_is_there(path: Path) -> None:
    named = set(re.findall(r"`(?:python )?([\w/]+\.py)`", path.read_text()))
    folders = (PROJECT, path.parent, PROJECT / "agent", PROJECT / "calibration", PROJECT / "tests" / "scenarios")
    assert [name for name in sorted(named) if not any((folder / name).is_file() for folder in folders)] == []


def leads_somewhere(path: Path, link: str) -> bool:
    target, _, heading = link.partition("#")
    file = path.parent / target if target else path
    return file.exists() and (not heading or heading in headings(file))


def headings(path: Path) -> set[str]:
    """The names by which GitHub links to the headings of a file."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
