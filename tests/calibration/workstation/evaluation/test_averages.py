"""Means and standard errors, against small examples."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import Any

import pytest

from calibration.workstation.evaluation.averages import Average, average, over_runs, over_sets
from calibration.workstation.evaluation.benchmark import Run

RUN: dict[str, Any] = {
    "set": "nuts",
    "backbone": "filterbank",
    "detector": "padim",
    "seed": 0,
    "folds": 5,
    "fold": 0,
    "learnt": 10,
    "size": "64x64",
    "divide_brightness": False,
    "threads": 1,
    "parameters": "Padim()",
    "backbone_sha256": "none",
    "set_sha256": "some",
    "version": "1",
    "good": 3,
    "defective": 4,
    "image_auroc": 0.5,
    "average_precision": 0.5,
    "brightness_auroc": 0.5,
    "pixel_auroc": None,
    "region_overlap": None,
    "best_f1": 0.5,
    "best_f1_threshold": 10.0,
    "false_reject_rate_at_full_detection": 0.5,
    "threshold": 20.0,
    "promised_false_reject_rate": 0.01,
    "expected_false_reject_rate": (0.0, 0.1),
    "false_reject_rate": 0.0,
    "promise_kept": True,
    "detection_rate": 1.0,
    "detection_by_kind": {"crack": 1.0},
    "skipped": (),
    "fit_s": 1.0,
    "network_ms": 2.0,
    "bundle_mb": 3.0,
}


def run(**figures: object) -> Run:
    return Run.model_validate({**RUN, **figures})


def test_mean_and_standard_error_are_those_counted_by_hand() -> None:
    found = average([0.90, 0.92, 0.97])
    # Deviations -0.03, -0.01, 0.04; squares 0.0026; over n - 1 = 2, root, over the root of 3.
    assert found.mean == pytest.approx(0.93)
    assert found.standard_error == pytest.approx(math.sqrt(0.0026 / 2 / 3))
    assert found.values == 3


def test_one_value_has_no_standard_error_and_none_has_no_mean() -> None:
    assert average([0.5]) == Average(0.5, None, 1)
    assert average([None, 0.5]) == Average(0.5, None, 1)
    assert average([None]) == Average(None, None, 0)


def test_runs_of_the_same_row_are_averaged_in_the_order_in_which_rows_come() -> None:
    rows = over_runs(
        [
            run(set="screws", image_auroc=0.8),
            run(detector="gaussian", image_auroc=0.1, promise_kept=False),
            run(image_auroc=0.6, fit_s=2.0),
            run(detector="gaussian", image_auroc=0.3, seed=1),
            run(image_auroc=0.8, fit_s=4.0, fold=1),
        ]
    )
    assert [(row.set, row.detector, row.over) for row in rows] == [
        ("screws", "padim", 1),
        ("nuts", "gaussian", 2),
        ("nuts", "padim", 2),
    ]
    assert [row.figures["image_auroc"].mean for row in rows] == pytest.approx([0.8, 0.2, 0.7])
    assert astuple(rows[2].figures["fit_s"]) == (3.0, pytest.approx(1.0), 2)
    assert rows[1].figures["promise_kept"].mean == 0.5
    assert rows[0].figures["pixel_auroc"] == Average(None, None, 0)


def test_over_sets_each_counts_the_same_however_many_runs_it_has() -> None:
    nuts = [run(image_auroc=auroc, seed=seed) for seed, auroc in enumerate((0.5, 0.6, 0.7))]
    screws = [run(set="screws", image_auroc=0.9, pixel_auroc=0.8)]
    (row,) = over_sets(over_runs([*nuts, *screws]))
    assert (row.set, row.over) == (None, 2)
    assert astuple(row.figures["image_auroc"]) == (pytest.approx(0.75), pytest.approx(0.15), 2)
    assert row.figures["pixel_auroc"] == Average(0.8, None, 1)
