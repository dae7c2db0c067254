"""On a system without shared memory, libraries that could use it say nothing to the user."""

from __future__ import annotations

import subprocess
import sys

# As where /dev/shm is read-only.
CODE = """
import _multiprocessing

class SemLock:
    def __new__(cls, *_, **__):
        raise OSError(30, "Read-only file system")

_multiprocessing.SemLock = SemLock
from calibration.workstation.evaluation.evaluation import sklearn_metrics
print(sklearn_metrics().roc_auc_score([0, 1], [0.0, 1.0]))
"""


def test_figures_of_an_evaluation_need_no_shared_memory_and_no_warning_about_it() -> None:
    ended = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120)  # noqa: S603 - our own program
    assert (ended.stdout.strip(), ended.stderr) == ("1.0", "")
