"""The report, as a person meets it: complete, whole in one file, and right in a browser."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.bundle.bundle import MANIFEST, SEAL, GoldenCheck, open_bundle, seal
from calibration.deployment.latency import Latency
from calibration.detectors.gaussian import Gaussian
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.report.histogram import HistogramMark, histogram
from calibration.workstation.report.html import SPACE, one_in, percent
from calibration.workstation.report.report import report_page
from calibration.workstation.settings import Settings
from tests.support.browser import Browser
from tests.support.chromium import require_chromium
from tests.support.outcome import assert_refused
from tests.support.washers import SIDE, Drawn, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

SPEED = Latency(2.5, 100, "onnxruntime-cpu", "A processor, 2 cores")
CHECKS = [GoldenCheck(100.0, 100.0001)]
PHONE_PX = 390
DESKTOP_PX = 1200


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory, small_filterbank: Backbone) -> Bundle:
    """Learnt from forty parts of which one is scratched, with names that need care."""
    pictures = [washer(number) for number in range(40)]
    pictures[13] = washer(13, scratched=True)
    path = tmp_path_factory.mktemp("report") / "washers & <nuts>"
    settings = Settings(Preprocess(SIDE, SIDE), false_reject_rate=0.05, threads=1)
    return calibrate(Drawn(pictures), small_filterbank, settings, path, lambda *_: None)


@pytest.fixture(scope="module")
def written(doubtful: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(report_page(doubtful, CHECKS, SPEED), encoding="utf-8")
    return file


class References(HTMLParser):
    """Everything on a page that a browser might load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        assert not [name for name, _ in attrs if name.startswith("on")]


def words(page: str) -> str:
    """The text, without tags, on one line."""
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body).replace("\u00a0", " "))


def test_the_page_is_one_file_that_loads_and_runs_nothing(written: Path) -> None:
    page = written.read_text()
    references = References(page)
    assert len(references.found) > 12
    assert all(each.startswith("data:") for each in references.found)
    assert not references.tags & {"script", "iframe", "object", "embed"}
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_says_what_a_quality_engineer_asks(written: Path, doubtful: Bundle) -> None:
    said = words(written.read_text())
    low, high = doubtful.manifest.working_point.interval
    for expected in (
        "Of good parts, about 1 in 20 will be rejected.",
        f"With 95 % confidence the true rate is between {one_in(low)} and {one_in(high)}",
        "Learned from 40 good images",
        "the whole frame",
        "One image stands out",
        "washer 13",
        "2.5 ms, the median of 100 runs",
        "mean_shift: alpha 0.3",
        "Ledoit and Wolf 2004",
        "at most 1.0e-06 away",
        doubtful.identity,
        *doubtful.manifest.files.values(),
    ):
        assert expected in said


def test_the_page_says_when_a_frame_is_not_trusted(written: Path) -> None:
    said = words(written.read_text(encoding="utf-8"))
    assert "When a frame is not trusted" in said
    for check in ("Another resolution", "Frozen", "Dark", "Over-exposed", "Blurred", "Blocked", "Moved"):
        assert check in said
    assert "mean brightness below" in said


def test_the_page_shows_what_is_found_of_each_kind_and_size(written: Path, doubtful: Bundle) -> None:
    forecast, page = doubtful.forecast, written.read_text(encoding="utf-8")
    assert forecast is not None
    said = words(page)
    counts = np.array([list(map(int, each)) for each in re.findall(r"</figure>(\d+) of (\d+)</td>", page)])
    assert counts.sum(axis=0).tolist() == [round(forecast.found() * 40), 40]
    assert page.count('<figure class="found">') + page.count('<figure class="missed">') == len(forecast.sizes) * 4
    assert f"{percent(forecast.found())} are found".replace(SPACE, " ") in said
    assert "of these synthetic defects" in said.lower()
    assert "at the threshold" in said
    assert "<polyline" in page


def test_a_bundle_without_a_forecast_says_so(doubtful: Bundle) -> None:
    older = replace(doubtful, manifest=doubtful.manifest.model_copy(update={"forecast": None}))
    assert "Not measured" in report_page(older, CHECKS, SPEED)


def test_where_no_score_is_far_above_the_rest_no_image_is_accused(small_filterbank: Backbone, tmp_path: Path) -> None:
    pictures = [washer(number) for number in range(40)]
    settings = Settings(Preprocess(SIDE, SIDE), threads=1)
    bundle = calibrate(Drawn(pictures), small_filterbank, settings, tmp_path / "b", lambda *_: None)
    page = report_page(bundle, CHECKS, SPEED)
    assert "No image stands out" in page
    assert '<span class="badge">' not in page


def test_names_are_text_and_never_markup(written: Path) -> None:
    page = written.read_text()
    assert "<nuts>" not in page
    assert "washers &amp; &lt;nuts&gt;" in page


def test_a_rate_beyond_the_images_is_called_extrapolated(learnt: Bundle) -> None:
    said = words(report_page(learnt, CHECKS, SPEED))
    assert "cannot be seen in 24 images: the threshold follows from the law of their scores" in said
    assert "at most 12 % (1 in 9)" in said
    assert "calibrate with 100 images or more" in said


def test_a_detector_without_locations_gets_a_report_too(
    small_filterbank: Backbone, tmp_path: Path, good_washers: list[Image]
) -> None:
    settings = Settings(Preprocess(SIDE, SIDE), Gaussian(components="npca"), threads=1)
    bundle = calibrate(Drawn(good_washers), small_filterbank, settings, tmp_path / "b", lambda *_: None)
    assert "Rippel et al. 2021" in report_page(bundle, CHECKS, SPEED)


def test_a_threshold_by_chi_square_promises_nothing_but_what_gaussian_features_would_keep(
    small_filterbank: Backbone, tmp_path: Path, good_washers: list[Image]
) -> None:
    settings = Settings(Preprocess(SIDE, SIDE), threshold_rule="chi-square", false_reject_rate=0.02, threads=1)
    bundle = calibrate(Drawn(good_washers), small_filterbank, settings, tmp_path / "b", lambda *_: None)
    point, scores = bundle.manifest.working_point, bundle.reference()["good_scores"]
    assert (point.method, point.threshold) == ("chi-square", point.chi_square)
    above = percent(float((scores > point.threshold).mean())).replace(SPACE, " ")
    said = words(report_page(bundle, CHECKS, SPEED))
    assert f"If features were Gaussian, 1 in 50 good parts would be rejected. Of these good images {above} are." in said
    assert "good parts rejected, if features were Gaussian" in said
    assert "about 1 in 50 will be rejected" not in said
    assert "for comparison: if features were Gaussian" not in said.lower()


def test_the_command_writes_the_report(command: Command, tmp_path: Path) -> None:
    folder = save(tmp_path / "pictures", [washer(number) for number in range(20)])
    (folder / "011.png").write_bytes(b"damaged")
    (tmp_path / "names.txt").write_text("007.png")
    options = ["--size", "64", "--roi", "2,3,60,58", "--leave-out", tmp_path / "names.txt"]
    assert command("fit", folder, "-o", tmp_path / "b", *options).code == 0
    out = tmp_path / "page.html"
    outcome = command("report", tmp_path / "b", "--out", out)
    assert outcome.code == 0
    assert f"report: {out}" in outcome.words
    said = words(out.read_text())
    assert "60 x 58 pixels, 2 from the left and 3 from the top" in said
    assert "007.png" in said
    assert "011.png is damaged or not an image" in said
    assert re.search(r"\d ms, the median of 100 runs", said)


def test_a_report_that_cannot_be_written_is_refused(command: Command, learnt: Bundle, tmp_path: Path) -> None:
    outcome = command("report", learnt.path, "--out", tmp_path / "no" / "page.html")
    assert_refused(outcome, "cannot write .*page.html", "--out")


def test_a_bundle_without_review_images_is_refused(command: Command, bundle: Bundle) -> None:
    arrays: dict[str, Any] = {
        name: array for name, array in bundle.reference().items() if not name.startswith("highest")
    }
    np.savez(bundle.path / "reference.npz", **arrays)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["files"]["reference.npz"] = hashlib.sha256((bundle.path / "reference.npz").read_bytes()).hexdigest()
    (bundle.path / MANIFEST).write_text(json.dumps(manifest))
    (bundle.path / SEAL).write_bytes(seal((bundle.path / MANIFEST).read_bytes()))
    outcome = command("report", open_bundle(bundle.path).path, "--out", bundle.path / "page.html")
    assert_refused(outcome, "made by older software", "calibrate again")


@given(
    values=st.lists(st.floats(0.01, 1e6), min_size=1, max_size=60),
    mark=st.one_of(st.none(), st.floats(0.01, 1e6)),
    logarithmic=st.booleans(),
)
def test_a_histogram_shows_every_value_on_its_side_of_the_mark(
    *, values: list[float], mark: float | None, logarithmic: bool
) -> None:
    array = np.array(values)
    drawn = histogram(array, "t", mark=None if mark is None else HistogramMark(mark, "m"), logarithmic=logarithmic)
    bars = re.findall(r'<rect x="([\d.-]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"( class="above")?/>', drawn)
    assert len(bars) == drawn.count("<rect")
    for left, top, width, height, _ in bars:
        assert float(left) >= -0.01
        assert float(left) + float(width) <= 100.01
        assert float(top) + float(height) == pytest.approx(100)
        assert float(height) >= 1.99
    above = {bool(side) for *_, side in bars}
    if mark is not None and not np.isclose(array, mark, rtol=1e-6).any():
        assert (True in above) == bool((array > mark).any())
        assert (False in above) == bool((array < mark).any())
    assert all(0 <= float(place) <= 100 for place in re.findall(r"left:([\d.-]+)%", drawn))


@pytest.mark.parametrize(
    ("rate", "said"), [(0.01, "1 in 100"), (0.5, "1 in 2"), (0.00012, "1 in 8,330"), (0.1015, "1 in 10")]
)
def test_rates_are_written_as_people_say_them(rate: float, said: str) -> None:
    assert one_in(rate) == said


@pytest.mark.parametrize(("rate", "text"), [(0.0123, "1.2"), (0.5, "50"), (0.994, "99"), (0.999, "100"), (1.0, "100")])
def test_shares_have_two_digits_and_no_exponent(rate: float, text: str) -> None:
    assert percent(rate) == f"{text}{SPACE}%"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require_chromium()
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE_PX, DESKTOP_PX])
def test_a_browser_asks_for_nothing_and_complains_of_nothing(browser: Browser, written: Path, width: int) -> None:
    seen = browser.open(written, width)
    assert "What it promises" in seen.dom
    assert (seen.requests, seen.console) == ([], [])


@pytest.mark.slow
def test_a_page_that_does_ask_and_complain_would_be_found_out(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<body><img src='http://example.invalid/x.png'><script>console.error('oh no')</script></body>")
    seen = browser.open(page, DESKTOP_PX)
    assert seen.requests == ["http://example.invalid/x.png"]
    assert any("oh no" in line for line in seen.console)


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE_PX, DESKTOP_PX])
def test_the_page_fits_the_screen_and_all_its_images_are_there(browser: Browser, written: Path, width: int) -> None:
    found = browser.measured(written, width)
    assert found["width"] <= width
    assert (found["pictures"], found["broken"]) == (15 + 4 * 4, 0)  # sides of 3, 4, 8 and 16 pixels, of four kinds
    for said in ("about 1 in 20 will be rejected", "washer 13", "stands out", "threshold"):
        assert said in found["text"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE_PX, DESKTOP_PX])
def test_a_screenshot_is_not_blank(browser: Browser, written: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    browser.open(written, width, f"--screenshot={shot}")
    picture = read_image(shot)
    assert picture.shape[1] == width
    assert (picture < 128).any(axis=2).mean() > 0.01  # ink
    assert (picture > 240).all(axis=2).mean() > 0.4  # paper
    red = (picture[..., 2] > 150) & (picture[..., 1] < 90)
    assert red.any()  # the threshold
