"""Calibration over a Dask cluster, for more pictures than one machine likes to read.

The result is that of one machine, whatever the number of workers and whoever was first: pictures are divided by their
number alone, and moments are added in a fixed order. Workers must see the pictures under the same paths, and run the
same software; both are asked for before anything is read. Features stay in the memory of the workers (which Dask spills
to their disks), so that the second look, which leaves images out, needs no picture again. A worker that dies is no
loss: Dask computes again what it held. Without any worker, or scheduler, calibration ends and leaves nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import contextmanager
from itertools import groupby
from math import ceil, prod
from typing import TYPE_CHECKING

from calibration.bundle.golden_frames import golden_indices
from calibration.detectors.feature_store import batch_images
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.statistics.moments import identical_features_error
from calibration.workstation.dataset import PictureFiles
from calibration.workstation.fit import dask_tasks as work
from calibration.workstation.fit.extraction import Gathered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from distributed import Future
    from numpy.typing import NDArray

    from calibration.detectors.head import Scorer
    from calibration.progress import Progress
    from calibration.statistics.moments import Moments
    from calibration.statistics.scores import Scores
    from calibration.workstation.dataset import Images
    from calibration.workstation.fit.dask_client import Cluster
    from calibration.workstation.fit.extraction import Extraction

    Float32 = NDArray[np.float32]

_PARTS = 64
_LEAST_IMAGES = 32
_PART_BYTES = 2**26
_ADDED_AT_ONCE = 4


class OnCluster:
    """Gathers on a cluster, see ``gathering.Gather``.

    Args:
        cluster: Does the work.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @contextmanager
    def __call__(
        self, images: Images, extraction: Extraction, folder: Path, threads: int, progress: Progress
    ) -> Iterator[Gathered]:
        """Look at all pictures; only those that become golden frames, and later the highest, are read here.

        Raises:
            SettingError: They are the frames of a video.
            ClusterError: The workers see other pictures or run other software, or the cluster is lost.
        """
        del folder  # nothing is written here
        if not isinstance(images, PictureFiles):
            raise SettingError(
                what=f"{images.source} is a video, which one machine reads from its start",
                remedy="leave out --dask; or give its frames as pictures",
            )
        pictures = [work.ImageSource(str(path), path.absolute()) for path in images.paths]
        self._cluster.refuse_unfit([picture.path for picture in pictures])
        parts = _parts(pictures, extraction)
        sent = self._cluster.submit(work.given, extraction)
        learnt = [self._cluster.submit(work.learnt, part, sent) for part in parts]
        told = [self._cluster.submit(work.facts_of, part) for part in learnt]
        store = ClusterFeatures(
            self._cluster, [self._cluster.submit(work.features_of, part) for part in learnt], extraction.shape
        )
        del learnt, sent  # what a worker holds beyond features may go
        gathered = Gathered(store)
        images.skipped.clear()
        told.reverse()
        while told:
            heard = self._cluster.result(told.pop())
            store.add(len(heard.names) * (1 + extraction.copies), heard.digests)
            gathered.names.extend(heard.names)
            gathered.places.extend(heard.places)
            images.skipped.extend(heard.skipped)
            for seen in heard.seen:
                gathered.reference.add(seen)
            progress("learning", len(gathered.names), len(images))
        _choose_golden(gathered, images, extraction, threads)
        yield gathered


def _parts(pictures: Sequence[work.ImageSource], extraction: Extraction) -> list[Sequence[work.ImageSource]]:
    """As many pictures in each as memory likes; by their number alone, so that sums come out alike on any cluster."""
    at_most = max(1, _PART_BYTES // (4 * prod(extraction.shape) * (1 + extraction.copies)))
    size = min(at_most, max(_LEAST_IMAGES, ceil(len(pictures) / _PARTS)))
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]


def _choose_golden(gathered: Gathered, images: Images, extraction: Extraction, threads: int) -> None:
    """The golden frames that one machine would have kept."""
    names = [gathered.names[index] for index in golden_indices(len(gathered.names))]
    pictures = dict(images.again(names))
    with OnnxRuntimeEngine(extraction.network, threads) as engine:
        for name in names:
            frame, _, reduced = extraction.of(engine, name, pictures[name])
            gathered.golden.offer(frame, reduced[0])
        gathered.golden.add_damaged(engine.reduced)


class ClusterFeatures:
    """Features on the workers of a cluster, see ``feature_store.Features``.

    Args:
        cluster: Whose.
        parts: Their features, (rows, d, h, w) each.
        shape: (d, h, w).
    """

    def __init__(self, cluster: Cluster, parts: Sequence[Future[Float32]], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._cluster = cluster
        self._parts = parts
        self._starts = [0]
        self._digests: set[bytes] = set()

    @property
    def count(self) -> int:
        """How many there are, as far as heard."""
        return self._starts[-1]

    def add(self, rows: int, digests: set[bytes]) -> None:
        """The next part has so many rows; equal ones have equal digests."""
        self._starts.append(self.count + rows)
        self._digests |= digests

    def refuse_copies(self) -> None:
        """Raise DegenerateFeaturesError unless two images differ."""
        if len(self._digests) == 1:
            raise identical_features_error()

    def batches(self, indices: Sequence[int]) -> Iterator[Float32]:
        """Features of some images, in their order, brought here a few at a time."""
        size = batch_images(self.shape, len(indices))
        for part, rows in self._by_part(indices):
            for start in range(0, len(rows), size):
                yield self._cluster.result(self._cluster.submit(work.rows_of, part, rows[start : start + size]))

    def moments(self, indices: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
        """Moments of some images: each worker's own, then sums of four, of four such, and so on."""
        sums = [self._cluster.submit(work.moments_of, part, rows, vectors) for part, rows in self._by_part(indices)]
        while len(sums) > 1:
            fours = (sums[start : start + _ADDED_AT_ONCE] for start in range(0, len(sums), _ADDED_AT_ONCE))
            sums = [self._cluster.submit(work.sum_of, four) for four in fours]
        return self._cluster.result(sums[0])

    def scores(self, indices: Sequence[int], scorer: Scorer) -> Iterator[Scores]:
        """Scores of some images, in their order; only these come here."""
        sent = self._cluster.submit(work.given, scorer)
        asked = [self._cluster.submit(work.scores_of, part, rows, sent) for part, rows in self._by_part(indices)]
        return (self._cluster.result(each) for each in asked)

    def _by_part(self, indices: Sequence[int]) -> Iterator[tuple[Future[Float32], list[int]]]:
        """Parts, and which of their rows, in the order of the images."""
        places = [(bisect_right(self._starts, index) - 1, index) for index in indices]
        for part, group in groupby(places, key=lambda place: place[0]):
            yield self._parts[part], [index - self._starts[part] for _, index in group]
