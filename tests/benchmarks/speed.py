"""Speed as ratios, which hold on any machine: what is compared runs by turns, and the least disturbed turn counts."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from mtd import THREADS, backbone_of, console, fit, settings_of, split
from rich import box
from rich.table import Table

from calibration.backbones.backbone import Backbone
from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.patchcore import PatchCore
from calibration.detectors.patchcore_head import PatchCoreHead
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.network.fusion import feature_network, reduced_shape
from calibration.onnx_graph import FLOAT, FeatureGraph, FeatureMap, GraphBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

FIT_IMAGES = 700
FEW_IMAGES = 100
_CALLS = 10
_KIB = 1024


@dataclass(frozen=True)
class Turns:
    """Seconds of one thing, a figure for each turn it had."""

    seconds: list[float]

    @property
    def best(self) -> float:
        """Others on the machine only ever add time."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """What it takes on this machine as it is now."""
        return statistics.median(self.seconds)


def by_turns(tasks: dict[str, Callable[[], object]], rounds: int, calls: int = 1) -> dict[str, Turns]:
    """Run each task in each round, so that a slow spell of the machine hits all of them.

    Args:
        tasks: Name -> what to run.
        rounds: Turns of each.
        calls: Timed calls in a turn, of which the fastest counts; one more, untimed, fills the caches first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            if calls > 1:
                task()
            seconds[name].append(min(_seconds(task) for _ in range(calls)))
    return {name: Turns(figures) for name, figures in seconds.items()}


def _seconds(task: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    task()
    return time.perf_counter() - start_s


def ratio(turns: dict[str, Turns], of: str, to: str) -> float:
    """Best turn of one by the best turn of the other."""
    return turns[of].best / turns[to].best


class BareBackbone:
    """The one graph of a backbone in ONNX Runtime, nothing around it."""

    def __init__(self, backbone: Backbone) -> None:
        (graph,) = backbone.graphs
        content = graph.model.SerializeToString()
        self._session = ort.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        mean, std = np.asarray(graph.mean), np.asarray(graph.std)
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._offset = (-mean / std).astype(np.float32)

    def prepared(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(height, width, 3), BGR, to (1, 3, height, width), normalised RGB."""
        rgb = frame[..., ::-1] * self._scale + self._offset
        return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32)

    def __call__(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """All levels of one image."""
        levels: list[NDArray[np.float32]] = self._session.run(None, {self._input: image})
        return levels


def network_turns(folder: Path, lite0: Backbone, rounds: int = 60) -> dict[str, Turns]:
    """One frame through the bare Lite0, the fused Lite0 and the fused filterbank, all on two threads."""
    paths, settings = split().learnt, settings_of()
    bare = BareBackbone(lite0)
    frame = settings.preprocess(read_image(paths[0]))
    image = bare.prepared(frame)
    few = paths[:FEW_IMAGES]
    bundles = {
        name: fit(backbone, few, settings, folder / f"{name}-speed")
        for name, backbone in (("lite0", lite0), ("filterbank", backbone_of("filterbank")))
    }
    with (
        OnnxRuntimeEngine(bundles["lite0"].network, THREADS) as fused,
        OnnxRuntimeEngine(bundles["filterbank"].network, THREADS) as filterbank,
    ):
        tasks: dict[str, Callable[[], object]] = {
            "bare Lite0": lambda: bare(image),
            "fused Lite0": lambda: fused(frame),
            "fused filterbank": lambda: filterbank(frame),
        }
        return by_turns(tasks, rounds, _CALLS)


def fit_turns(folder: Path, backbone: Backbone, images: int = FIT_IMAGES, rounds: int = 3) -> dict[str, Turns]:
    """The whole fit, and the least that anyone could do: read each picture and run the bare backbone on it."""
    paths, settings = split().learnt[:images], settings_of()
    bare = BareBackbone(backbone)
    image = bare.prepared(settings.preprocess(read_image(paths[0])))
    bundles = (folder / f"fit-{number}" for number in range(rounds))
    tasks: dict[str, Callable[[], object]] = {
        "fit": lambda: fit(backbone, paths, settings, next(bundles)),
        "feature pass": lambda: [bare(bare.prepared(settings.preprocess(read_image(path)))) for path in paths],
        "feature pass, no decoding": lambda: [bare(image) for _ in paths],
    }
    return by_turns(tasks, rounds)


def remembered(folder: Path, lite0: Backbone) -> tuple[PatchCoreHead, NDArray[np.float32]]:
    """What PatchCore remembers of all calibrating tiles, 1 % of their patches, and the patches of a test tile."""
    tiles, settings, detector = split(), settings_of(), PatchCore(coreset=0.01)
    network = feature_network(lite0, detector, divide_brightness=False)
    with (
        OnnxRuntimeEngine(network.SerializeToString(), THREADS) as engine,
        FeatureStore(folder, reduced_shape(network)) as store,
    ):
        for path in tiles.learnt:
            store.append(engine.reduced(settings.preprocess(read_image(path))))
        head = detector.fit(store, Folds([range(store.count)]), lite0.level_channels).head
        reduced = engine.reduced(settings.preprocess(read_image(tiles.test[0].path)))
    if not isinstance(head, PatchCoreHead):
        raise TypeError
    return head, reduced


def search_turns(head: PatchCoreHead, reduced: NDArray[np.float32], rounds: int = 40) -> dict[str, Turns]:
    """The head alone, with score and map, and scikit-learn's search for as many neighbours in the same bank.

    Of scikit-learn's algorithms the fastest on this machine count; trees are far behind in so many dimensions.
    """
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - slow to import, and most of this file needs none

    session = _head_session(head, reduced.shape)
    feed = {"reduced": reduced[None]}
    patches = np.ascontiguousarray(reduced.reshape(len(reduced), -1).T) - head.mean
    neighbours = head.neighbours.shape[1]
    searches: dict[str, Callable[[], object]] = {}
    for algorithm in ("auto", "brute", "kd_tree"):
        for jobs in (1, THREADS):
            search = NearestNeighbors(n_neighbors=neighbours, algorithm=algorithm, n_jobs=jobs).fit(head.bank)
            searches[f"scikit-learn, {algorithm}, {jobs} jobs"] = partial(search.kneighbors, patches)
    first = by_turns(searches, rounds=1, calls=2)
    fastest = min(turns.best for turns in first.values())
    fast = {name: search for name, search in searches.items() if first[name].best < 3 * fastest}
    return by_turns({"PatchCore's head": lambda: session.run(["score", "map"], feed), **fast}, rounds, _CALLS)


def search_ratio(turns: dict[str, Turns]) -> float:
    """The fastest search by the head."""
    return min(ratio(turns, name, "PatchCore's head") for name in turns if name != "PatchCore's head")


def _head_session(head: PatchCoreHead, shape: tuple[int, ...]) -> ort.InferenceSession:
    channels, height, width = shape
    graph = GraphBuilder("head")
    grid = head.attach(graph, FeatureMap("reduced", (channels, height, width)))
    model = graph.model({"reduced": (FLOAT, (1, *shape))}, {"score": (FLOAT, (1,)), "map": (FLOAT, (1, *grid))})
    # Behind a backbone the threads are awake when the head's turn comes; alone, they have to be kept so.
    options = _options(spinning=True)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _options(*, spinning: bool = False) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    if not spinning:
        # As in the engine; else these threads would still be spinning while the next task has its turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def peak_mib(folder: Path, backbone: Backbone, counts: Sequence[int]) -> list[float]:
    """Peak memory of a fit over so many images, each in a fresh process without torch."""
    model = folder / "backbone.onnx"
    (graph,) = backbone.graphs
    onnx.save(graph.model, model)
    return [_in_fresh_process(model, graph, count) for count in counts]


def _in_fresh_process(model: Path, graph: FeatureGraph, count: int) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_fit_and_peak, model, graph.mean, graph.std, count).result()


def _fit_and_peak(model: Path, mean: tuple[float, float, float], std: tuple[float, float, float], count: int) -> float:
    backbone = Backbone((FeatureGraph(onnx.load(model), mean, std),), model.name)
    with tempfile.TemporaryDirectory() as folder:
        fit(backbone, split().learnt[:count], settings_of(), Path(folder) / "bundle")
    # Not getrusage: its ru_maxrss is inherited over exec, so that a large parent would hide what its child takes.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if peak is None:
        message = "this kernel does not tell the peak memory of a process"
        raise RuntimeError(message)
    return int(peak[1]) / _KIB


def main() -> None:
    """Measure and print all ratios."""
    lite0 = backbone_of("lite0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = network_turns(folder, lite0)
        fitting = fit_turns(folder, lite0)
        searching = search_turns(*remembered(folder, lite0))
        few, many = peak_mib(folder, lite0, (FEW_IMAGES, FIT_IMAGES))
    decoded = ratio(fitting, "fit", "feature pass")
    bare = ratio(fitting, "fit", "feature pass, no decoding")
    ratios = Table("ratio", "measured", "limit", box=box.MARKDOWN)
    ratios.add_row("fused Lite0 / bare Lite0", f"{ratio(network, 'fused Lite0', 'bare Lite0'):.2f}", "1.6")
    ratios.add_row("fused filterbank / fused Lite0", f"{ratio(network, 'fused filterbank', 'fused Lite0'):.2f}", "1.0")
    ratios.add_row(f"fit of {FIT_IMAGES} / feature pass", f"{decoded:.2f}", "3")
    ratios.add_row(f"fit of {FIT_IMAGES} / feature pass without decoding", f"{bare:.2f}", "")
    ratios.add_row("scikit-learn's search / PatchCore's head", f"{search_ratio(searching):.1f}", "at least 5")
    ratios.add_row(f"peak memory, {FIT_IMAGES} / {FEW_IMAGES} images", f"{many / few:.3f}", "1.1")
    times = Table("for information", "best", "median", box=box.MARKDOWN)
    for what, turns in {**network, **searching}.items():
        times.add_row(what, f"{1e3 * turns.best:.2f} ms", f"{1e3 * turns.median:.2f} ms")
    for what, turns in fitting.items():
        times.add_row(f"{what}, {FIT_IMAGES} images", f"{turns.best:.1f} s", f"{turns.median:.1f} s")
    times.add_row(f"peak memory, {FEW_IMAGES} images", f"{few:.0f} MiB", "")
    times.add_row(f"peak memory, {FIT_IMAGES} images", f"{many:.0f} MiB", "")
    console.print(ratios)
    console.print(times)


if __name__ == "__main__":
    main()
