"""Feature extraction on a Dask cluster, for more images than one machine can read in reasonable time.

The result is the same as on one machine, whatever the number and the speed of the workers: images are divided by their
number alone, and moments are added in a fixed order. Workers must see the images under the same paths and run the same
software; both are checked before anything is read. Features stay in the memory of the workers (Dask spills them to
their disks), so that scoring the images that were held out reads no image again. Dask computes again what a worker that
dies has held. Without any worker, or without the scheduler, calibration ends and leaves nothing.
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
from calibration.statistics.moments import identical_features_error, merged
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.fit import dask_tasks
from calibration.workstation.fit.extraction import TrainingData

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

_SHARES = 64
_LEAST_IMAGES = 32
_SHARE_BYTES = 2**26
_ADDED_AT_ONCE = 4


class ClusterExtractor:
    """Extracts features on a cluster; an ``Extractor``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @contextmanager
    def __call__(
        self, images: Images, extraction: Extraction, folder: Path, threads: int, progress: Progress
    ) -> Iterator[TrainingData]:
        """Extract the features of all images; only golden frames, and later the highest scores, are read here.

        Raises:
            SettingError: The images are frames of a video.
            ClusterError: The workers see other images or run other software, or the cluster is lost.
        """
        del folder  # nothing is written here
        if not isinstance(images, ImageFiles):
            raise SettingError(
                what=f"{images.source} is a video, which one machine reads from its start",
                remedy="leave out --dask; or give its frames as images",
            )
        submit = self._cluster.submit
        sources = [dask_tasks.ImageSource(str(path), path.absolute()) for path in images.paths]
        self._cluster.refuse_unfit([source.path for source in sources])
        sent = submit(dask_tasks.passed_on, extraction)
        extracted = [submit(dask_tasks.extract, share, sent) for share in _shares(sources, extraction)]
        waiting = [submit(dask_tasks.facts_of, share) for share in extracted]
        features = [submit(dask_tasks.features_of, share) for share in extracted]
        store = ClusterFeatures(self._cluster, features, extraction.shape)
        del extracted, sent  # so that workers can release all but the features
        data = TrainingData(store)
        images.skipped.clear()
        waiting.reverse()
        while waiting:
            facts = self._cluster.result(waiting.pop())
            store.add(len(facts.names) * (1 + extraction.copies), facts.digests)
            data.names.extend(facts.names)
            data.locations.extend(facts.locations)
            data.fingerprints.extend(facts.fingerprints)
            images.skipped.extend(facts.skipped)
            images.forms.update(facts.forms)
            for observation in facts.observations:
                data.reference.add(observation)
            progress("learning", len(data.names), len(images))
        _choose_golden(data, images, extraction, threads)
        yield data


def _shares(
    sources: Sequence[dask_tasks.ImageSource], extraction: Extraction
) -> list[Sequence[dask_tasks.ImageSource]]:
    """Shares that fit into memory; they depend on the number of images alone, so that sums are alike on any cluster."""
    at_most = max(1, _SHARE_BYTES // (4 * prod(extraction.shape) * (1 + extraction.copies)))
    size = min(at_most, max(_LEAST_IMAGES, ceil(len(sources) / _SHARES)))
    return [sources[start : start + size] for start in range(0, len(sources), size)]


def _choose_golden(data: TrainingData, images: Images, extraction: Extraction, threads: int) -> None:
    """The golden frames that one machine would have kept."""
    names = [data.names[index] for index in golden_indices(len(data.names))]
    chosen = dict(images.again(names))
    with OnnxRuntimeEngine(extraction.network, threads) as engine:
        for name in names:
            frame, _, reduced = extraction.features_of(engine, name, chosen[name])
            data.golden.offer(frame, reduced[0])
        data.golden.add_damaged(engine.reduced)


class ClusterFeatures:
    """Features, (d, h, w) each, in shares of (rows, d, h, w) on the workers; see ``feature_store.Features``."""

    def __init__(self, cluster: Cluster, shares: Sequence[Future[Float32]], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._cluster = cluster
        self._shares = shares
        self._starts = [0]
        self._digests: set[bytes] = set()

    @property
    def count(self) -> int:
        """Rows of the shares that are complete."""
        return self._starts[-1]

    def add(self, rows: int, digests: set[bytes]) -> None:
        """Note that the next share is complete; equal rows have equal digests."""
        self._starts.append(self.count + rows)
        self._digests |= digests

    def refuse_copies(self) -> None:
        """Raise DegenerateFeaturesError unless two images differ."""
        if len(self._digests) == 1:
            raise identical_features_error()

    def batches(self, indices: Sequence[int]) -> Iterator[Float32]:
        """Features of some images, in their order, fetched a few at a time."""
        size = batch_images(self.shape, len(indices))
        for share, rows in self._by_share(indices):
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                yield self._cluster.result(self._cluster.submit(dask_tasks.rows_of, share, batch))

    def moments(self, indices: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
        """Moments of some images: of each share, then sums of four, of four sums, and so on."""
        submit = self._cluster.submit
        sums = [submit(dask_tasks.moments_of, share, rows, vectors) for share, rows in self._by_share(indices)]
        while len(sums) > 1:
            fours = (sums[start : start + _ADDED_AT_ONCE] for start in range(0, len(sums), _ADDED_AT_ONCE))
            sums = [submit(merged, four) for four in fours]
        return self._cluster.result(sums[0])

    def scores(self, indices: Sequence[int], scorer: Scorer) -> Iterator[Scores]:
        """Scores of some images, in their order; only these are fetched."""
        submit = self._cluster.submit
        sent = submit(dask_tasks.passed_on, scorer)
        scores = [submit(dask_tasks.scores_of, share, rows, sent) for share, rows in self._by_share(indices)]
        return (self._cluster.result(each) for each in scores)

    def _by_share(self, indices: Sequence[int]) -> Iterator[tuple[Future[Float32], list[int]]]:
        """Shares and rows in them, in the order of the images."""
        located = [(bisect_right(self._starts, index) - 1, index) for index in indices]
        for share, group in groupby(located, key=lambda pair: pair[0]):
            yield self._shares[share], [index - self._starts[share] for _, index in group]
