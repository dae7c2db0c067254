"""The command ``benchmark``: settings compared on drawn washers."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.progress import Progress

from calibration.terminal import EXIT_INTERRUPTED, TimeLeft, console
from calibration.workstation.cli import benchmark
from calibration.workstation.cli.benchmark_output import print_benchmark
from calibration.workstation.evaluation.averages import FIGURES, average
from calibration.workstation.evaluation.benchmark import Run
from calibration.workstation.evaluation.evaluation import EvaluationResult
from calibration.workstation.evaluation.run_log import COLUMNS
from tests.calibration.workstation.evaluation.test_averages import run as made_run
from tests.support.outcome import Outcome, assert_refused
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[..., Outcome]

SMALL = ("--size", 64, "--threads", 1)
TIMES = ("fit_s", "network_ms")


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Washers without a division: 22 good ones, 6 scratched ones."""
    folder = tmp_path_factory.mktemp("sets") / "washers"
    save(folder / "good", [washer(number) for number in range(22)])
    save(folder / "scratch", [washer(number, scratched=True) for number in range(200, 206)])
    return folder


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories as MVTec names its files, one with masks and the other grey; of unequal size."""
    folder = tmp_path_factory.mktemp("mvtec")
    for name, learnt, first in (("nut", 12, 0), ("ring", 20, 50)):
        good = [washer(number) for number in range(first, first + learnt + 4)]
        bad = [washer(number, scratched=True) for number in range(first + 300, first + 305)]
        masks = [np.where(picture[..., 2] > 2.0 * picture[..., 1], 255, 0).astype(np.uint8) for picture in bad]
        if name == "ring":
            good, bad = ([picture[..., 1] for picture in pictures] for pictures in (good, bad))
        save(folder / name / "train" / "good", good[:learnt])
        save(folder / name / "test" / "good", good[learnt:])
        save(folder / name / "test" / "scratch", bad)
        if name == "nut":
            save(folder / name / "ground_truth" / "scratch", masks, suffix="_mask.png")
    (folder / "license.txt").write_text("of the images")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_row_is_written_for_each_run_and_the_means_are_theirs(command: Command, kinds: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "runs.csv", tmp_path / "runs.json"
    compared = ("--detector", "mean_shift", "--detector", "gaussian:components=npca,retained_variance=0.1")
    outcome = command(
        "benchmark", kinds, *SMALL, *compared, "--folds", 2, "--seeds", 2, "--csv", out, "--json", figures
    )
    assert outcome.code == 0
    rows = rows_of(out)
    assert list(rows[0]) == list(COLUMNS)
    names = [(row["detector"].partition(":")[0], row["seed"], row["fold"]) for row in rows]
    pairs = [(seed, fold) for seed in "01" for fold in "01"]
    assert names == [(detector, *pair) for pair in pairs for detector in ("mean_shift", "gaussian")]
    assert {(row["learnt"], row["good"], row["defective"]) for row in rows} == {("11", "11", "6")}
    assert len({(row["detector"], row["threshold"]) for row in rows}) == 8  # each learnt from other images
    content = json.loads(figures.read_text())
    assert [run["threshold"] for run in content["runs"]] == [float(row["threshold"]) for row in rows]
    assert content["software"]["shiftwatch"] == rows[0]["version"]
    assert set(content["averages"][0]["figures"]) == set(FIGURES)
    first = content["averages"][0]
    assert (first["set"], first["detector"], first["over"]) == ("washers", "mean_shift", 4)
    of_first = [float(row["detection_rate"]) for row in rows if row["detector"] == "mean_shift"]
    assert first["figures"]["detection_rate"]["mean"] == pytest.approx(np.mean(of_first))
    assert first["figures"]["detection_rate"]["standard_error"] == pytest.approx(np.std(of_first, ddof=1) / 2)
    for said in ("washers: 11 good images learned", "11 good and 6 defective", "4 runs each", "brightness alone"):
        assert said in outcome.words


def test_a_run_gives_what_fit_and_evaluate_give(command: Command, root: Path, tmp_path: Path) -> None:
    options = ("--size", 64, "--detector", "padim", "--divide-brightness")
    assert command("fit", root / "nut", *options, "-o", tmp_path / "b").code == 0
    apart = tmp_path / "apart.json"
    command("evaluate", tmp_path / "b", root / "nut", "--json", apart, "--scores", tmp_path / "s.csv")
    together = tmp_path / "together.json"
    assert command("benchmark", root / "nut", *options, "--json", together).code == 0
    (run,) = json.loads(together.read_text())["runs"]
    expected = json.loads(apart.read_text())
    assert {name: run[name] for name in expected if name != "bundle"} == {
        name: value for name, value in expected.items() if name != "bundle"
    }
    assert run["pixel_auroc"] > 0.8
    assert run["bundle_mb"] == pytest.approx(
        sum(file.stat().st_size for file in (tmp_path / "b").iterdir()) / 1e6, 0.01
    )


@pytest.mark.slow
def test_patch_svdd_is_compared_with_random_encoders_and_with_raw_patches(
    command: Command, root: Path, tmp_path: Path
) -> None:
    """Its encoders are its own: the backbone named is for the others."""
    pytest.importorskip("torch", reason="torch is an extra: pip install --editable '.[fit]'")
    compared = ("patch_svdd:steps=2", "patch_svdd:steps=0", "patch_svdd:encoders=raw", "padim")
    detectors = [word for name in compared for word in ("--detector", name)]
    out = tmp_path / "runs.csv"
    outcome = command("benchmark", root / "nut", *SMALL, *detectors, "--backbone", "filterbank", "--csv", out)
    assert outcome.code == 0
    rows = rows_of(out)
    expected = [(name, "own encoders" if "svdd" in name else "filterbank") for name in compared]
    assert [(row["detector"], row["backbone"]) for row in rows] == expected
    assert len({row["threshold"] for row in rows}) == len(compared)
    assert all(float(row["pixel_auroc"]) > 0.5 for row in rows if row["detector"] != compared[0])


def test_a_run_has_all_figures_of_an_evaluation() -> None:
    assert {field.name for field in fields(EvaluationResult)} - {"scored"} <= set(Run.model_fields)


@pytest.mark.slow
def test_all_categories_of_a_root_are_run_and_averaged(command: Command, root: Path, tmp_path: Path) -> None:
    outcome = command("benchmark", root, *SMALL, "--images", 11, "--seeds", 2, "--csv", tmp_path / "runs.csv")
    assert outcome.code == 0
    rows = rows_of(tmp_path / "runs.csv")
    assert [(row["set"], row["seed"], row["fold"], row["learnt"]) for row in rows] == [
        (name, seed, "", "11") for name in ("nut", "ring") for seed in "01"
    ]
    assert [bool(row["pixel_auroc"]) for row in rows] == [True, True, False, False]
    table = outcome.out[outcome.out.index("mean of 2 sets") :]
    found = [float(row["average_precision"]) for row in rows]
    assert f"{np.mean(found):.3f}" in table
    assert f"±{average([float(np.mean(found[:2])), float(np.mean(found[2:]))]).standard_error:.3f}" in table
    assert "pixel AUROC and PRO: of the 1 sets with masks" in table


def test_where_nothing_varies_seeds_give_one_run_and_the_command_says_so(command: Command, root: Path) -> None:
    outcome = command("benchmark", root / "nut", *SMALL, "--seeds", 3)
    assert "one run only: nut says what to learn from" in outcome.words
    assert "runs each" not in outcome.words
    assert "±" not in outcome.out


@contextmanager
def interrupting_bar(runs: int) -> Iterator[Callable[[str, float], None]]:
    def move(_run: str, done: float) -> None:
        if done > 2.5:
            raise KeyboardInterrupt

    assert runs == 4
    yield move


@pytest.mark.slow
def test_an_interrupted_benchmark_goes_on_where_it_stopped(
    command: Command, kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    wanted = ("benchmark", kinds, *SMALL, "--folds", 2, "--seeds", 2, "--csv")
    command(*wanted, whole)
    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "runs_bar", interrupting_bar)
        stopped = command(*wanted, part)
    assert stopped.code == EXIT_INTERRUPTED
    before = part.read_text()
    assert before.count("\n") == 1 + 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.csv", "whole.csv"]  # no bundle is left behind
    outcome = command(*wanted, part)
    assert outcome.code == 0
    assert "2 of 4 runs are in" in outcome.words
    assert part.read_text().startswith(before)
    untimed = [
        [{name: cell for name, cell in row.items() if name not in TIMES} for row in rows_of(file)]
        for file in (whole, part)
    ]
    assert untimed[0] == untimed[1]


def test_when_all_runs_are_there_none_is_made_again(
    command: Command, kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("benchmark", kinds, *SMALL, "--folds", 2, "--csv", tmp_path / "runs.csv")
    first = command(*wanted)
    monkeypatch.setattr("calibration.workstation.evaluation.benchmark.measured", None)
    again = command(*wanted)
    assert again.code == 0
    assert again.out.endswith(first.out)


@pytest.mark.slow
def test_a_row_that_was_cut_short_is_made_again(command: Command, kinds: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    wanted = ("benchmark", kinds, *SMALL, "--folds", 2, "--csv", out)
    command(*wanted)
    rows = rows_of(out)
    out.write_text(out.read_text()[:-30])
    outcome = command(*wanted)
    assert "1 of 2 runs are in" in outcome.words
    assert [row["threshold"] for row in rows_of(out)] == [row["threshold"] for row in rows]


@pytest.fixture
def runs_file(command: Command, root: Path, tmp_path: Path) -> Path:
    """One run, of the nuts."""
    path = tmp_path / "runs.csv"
    assert command("benchmark", root / "nut", *SMALL, "--csv", path).code == 0
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("--divide-brightness",), "divide_brightness False there, True here"),
        (("--images", 11), "learnt 12 there, 11 here"),
        (("--detector", "mean_shift:alpha=0.3"), "detector 'mean_shift' there, 'mean_shift:alpha=0.3' here"),
        (("--size", "64x80"), "size '64x64' there, '64x80' here"),
    ],
)
def test_runs_of_other_settings_are_refused_and_stay(
    command: Command, root: Path, runs_file: Path, options: tuple[object, ...], difference: str
) -> None:
    before = runs_file.read_bytes()
    outcome = command("benchmark", root / "nut", *SMALL, "--csv", runs_file, *options)
    assert_refused(outcome, f"runs.csv holds runs of other settings: .*{difference}", "another name with --csv")
    assert runs_file.read_bytes() == before


def test_runs_of_a_set_that_has_changed_are_refused(command: Command, root: Path, tmp_path: Path) -> None:
    changing = shutil.copytree(root / "nut", tmp_path / "nut")
    wanted = ("benchmark", changing, *SMALL, "--csv", tmp_path / "runs.csv")
    assert command(*wanted).code == 0
    (changing / "test" / "good" / "000.png").unlink()
    assert_refused(command(*wanted), "holds runs of other settings: set_sha256 .* there", "--csv FILE")


@pytest.mark.slow
def test_runs_of_a_detector_with_other_defaults_are_refused(command: Command, root: Path, runs_file: Path) -> None:
    runs_file.write_text(runs_file.read_text().replace("alpha=0.3", "alpha=0.03"))
    outcome = command("benchmark", root / "nut", *SMALL, "--csv", runs_file)
    assert_refused(outcome, "holds runs of other settings: parameters .*alpha=0.03.* there", "--csv FILE")


@pytest.mark.parametrize("content", ["path,score\na,1\n", "no table", "set,backbone", "set,backbone\n"])
def test_another_file_is_refused_and_stays(command: Command, kinds: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "notes.csv"
    file.write_text(content)
    outcome = command("benchmark", kinds, *SMALL, "--csv", file)
    assert_refused(outcome, "notes.csv is not a file of benchmark runs", "another name with --csv FILE")
    assert file.read_text() == content


@pytest.mark.slow
def test_a_file_with_nothing_but_its_first_line_is_begun_again(command: Command, kinds: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    for begun in ("", ",".join(COLUMNS)):
        file.write_text(begun)
        assert command("benchmark", kinds, *SMALL, "--folds", 2, "--csv", file).code == 0
        assert len(rows_of(file)) == 2


@pytest.mark.slow
def test_a_damaged_row_is_refused(command: Command, root: Path, runs_file: Path) -> None:
    runs_file.write_text(runs_file.read_text() + "nut,filterbank\n")
    assert_refused(
        command("benchmark", root / "nut", *SMALL, "--csv", runs_file), "is damaged", "remove the damaged row"
    )


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_file_that_cannot_be_written_is_refused_before_any_run(
    command: Command, kinds: Path, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibration.workstation.evaluation.benchmark.measured", None)
    (tmp_path / "file").touch()
    outcome = command("benchmark", kinds, *SMALL, option, tmp_path / "file" / "inside")
    assert_refused(outcome, "cannot read or write .*inside", option)


def test_a_run_that_fails_is_named(command: Command, kinds: Path) -> None:
    outcome = command("benchmark", kinds, *SMALL, "--memory-limit-mib", 1)
    assert_refused(outcome, "washers filterbank mean_shift: .* MiB", "--memory-limit-mib")


def test_what_would_be_compared_with_itself_is_refused(command: Command, kinds: Path) -> None:
    outcome = command("benchmark", kinds, *SMALL, "--backbone", "filterbank", "--backbone", "filterbank")
    assert_refused(outcome, "washers with filterbank with mean_shift would be compared with itself", "once")
    assert_refused(command("benchmark", kinds, kinds, *SMALL), "would be compared with itself", "once")


def test_images_that_cannot_be_read_are_counted_and_named(command: Command, tmp_path: Path) -> None:
    save(tmp_path / "good", [washer(number) for number in range(24)])
    save(tmp_path / "scratch", [washer(number, scratched=True) for number in range(4)])
    (tmp_path / "good" / "003.png").write_bytes(b"damaged")
    outcome = command("benchmark", tmp_path, *SMALL, "--folds", 2)
    assert outcome.code == 0
    assert "1 images skipped:" in outcome.out
    assert "good/003.png is damaged" in outcome.out


def test_without_scikit_learn_the_command_says_what_to_install(
    command: Command, kinds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert_refused(command("benchmark", kinds), "needs scikit-learn", r"pip install .*'\.\[evaluate\]'")


def printed(capsys: pytest.CaptureFixture[str], runs: list[Run], monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    monkeypatch.setattr(console, "_width", width)
    print_benchmark(runs)
    return capsys.readouterr().out


def test_figures_and_their_errors_stand_under_each_other_and_none_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        made_run(image_auroc=auroc, fold=fold, false_reject_rate=rejected, detector="mean_shift:alpha=0.03,averaging=1")
        for fold, (auroc, rejected) in enumerate(((0.90, 0.0), (0.92, 0.02), (0.97, 0.04)))
    ]
    out = printed(capsys, runs, monkeypatch, 40)
    assert "…" not in out
    lines = [line.split() for line in out.splitlines()]
    mean = next(number for number, line in enumerate(lines) if line[:1] == ["filterbank"])
    assert lines[mean][1:] == ["0.930", "0.500", "-", "-", "0.500", "50.0%", "2.0%", "100.0%", "1.0", "2.0", "3.0"]
    assert lines[mean + 1][1:] == ["±0.021", "±0.000", "±0.000", "±0.0", "±1.2", "±0.0", "±0.0", "±0.0", "±0.0"]
    assert "1% promised" in out


def test_time_left_follows_from_the_runs_that_are_done() -> None:
    now_s = 0.0
    bars = Progress(get_time=lambda: now_s)
    bars.add_task("runs", total=10)
    task = bars.tasks[0]
    assert TimeLeft().render(task).plain == "-:--:-- left"
    now_s = 300.0
    bars.update(task.id, completed=2.5)
    assert TimeLeft().render(task).plain == "0:15:00 left"


def test_the_bar_speaks_of_runs(command: Command, kinds: Path) -> None:
    outcome = command("benchmark", kinds, *SMALL, "--folds", 2)
    assert re.search(r"washers filterbank mean_shift .* 2/2 0:00:00 left", outcome.err)


def test_benchmark_compares_presets_and_detectors_on_one_backbone(
    command: Command, kinds: Path, tmp_path: Path
) -> None:
    table = tmp_path / "runs.json"
    options = (*SMALL, "--backbone", "filterbank", "--folds", 2, "--json", table)
    methods = ("--preset", "padim2021", "--preset", "rippel2021", "--detector", "mean_shift")
    assert command("benchmark", kinds, *options, *methods).code == 0
    compared = {run["detector"] for run in json.loads(table.read_text())["runs"]}
    assert compared == {"padim2021", "rippel2021", "mean_shift"}
