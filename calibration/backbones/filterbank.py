"""The default backbone: oriented texture, contrast and colour at four scales, computed by formulas.

It needs no weights, download or torch, so a device can calibrate without a workstation. Gabor energy follows Daugman
(1985); division by the local mean energy follows Heeger (1992) and cancels most of the lighting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from calibration.onnx_graph import FLOAT, FROM_HALF, GraphBuilder

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

LEVELS = 4
ORIENTATIONS = 8
STRIDE = 16
CHANNELS = LEVELS * (2 * ORIENTATIONS + 3) + 3

_KERNEL = 9
_SIGMA = 2.0
_WAVELENGTH = 4.5
_ASPECT = 0.7
# FP16 rounds squares of small responses to zero, so all responses are amplified, which changes no bit in FP32. Not more
# than this: in a black frame divided by its own brightness, white pixels are 115, and FP16 ends at a square of 65504.
_GAIN = 4.0
_SURROUND_FLOOR = 0.01 * _GAIN
# Patterns and contrasts below these are sensor noise.
_ENERGY_FLOOR = 0.05
_CONTRAST_FLOOR = 0.01
_SURROUND = 5
# Luminance (BT.601), red against green, yellow against blue.
_OPPONENT = np.array([[0.299, 0.587, 0.114], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])


def gabor_bank() -> NDArray[np.float32]:
    """Even, then odd Gabor filters, (2 * ORIENTATIONS, 1, 9, 9), each with zero mean and unit L1 norm."""
    radius = _KERNEL // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    kernels = []
    for phase in (0.0, np.pi / 2):
        for angle in np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS:
            along = x * np.cos(angle) + y * np.sin(angle)
            across = -x * np.sin(angle) + y * np.cos(angle)
            envelope = np.exp(-(along**2 + (_ASPECT * across) ** 2) / (2 * _SIGMA**2))
            kernel = envelope * np.cos(2 * np.pi * along / _WAVELENGTH + phase)
            kernel -= kernel.mean()
            kernels.append(kernel / np.abs(kernel).sum())
    return np.stack(kernels)[:, None].astype(np.float32)


def filterbank(height: int, width: int) -> onnx.ModelProto:
    """The backbone as an ONNX graph; both sides are multiples of 16.

    Its input is ``image`` (1, 3, height, width), float RGB in 0..1, and its output ``features``
    (1, 79, height / 16, width / 16).
    """
    graph = GraphBuilder("filterbank")
    colour = _mix(graph, graph.constant("filterbank.opponent", _OPPONENT.astype(np.float32)), "image", (height, width))
    bank = _Bank(
        gabor=graph.constant("filterbank.gabor", np.float32(_GAIN) * gabor_bank()),
        pairs=graph.constant("filterbank.pairs", np.tile(np.eye(ORIENTATIONS, dtype=np.float32), 2)[:, :, None, None]),
        mean=graph.constant("filterbank.mean", np.full((1, ORIENTATIONS), 1 / ORIENTATIONS, np.float32)),
    )
    brightness = _grid(graph, "AveragePool", colour, STRIDE)
    energies, contrasts = [], []
    for level in range(LEVELS):
        if level:
            colour = graph.add("AveragePool", colour, kernel_shape=[2, 2], strides=[2, 2])
        cell = STRIDE >> level
        energy = _oriented_energy(graph, colour, bank, (height >> level, width >> level))
        energies += [_grid(graph, "AveragePool", energy, cell), _grid(graph, "MaxPool", energy, cell)]
        contrasts.append(_grid(graph, "AveragePool", _contrast(graph, colour), cell))
    # What FP16 would round here, nothing averages out: a channel that is constant in grey images has no variance, and
    # the head counts each difference in standard deviations.
    brightness, energy, contrast = (
        graph.add("Identity", source, output=f"{FROM_HALF}{name}")
        for name, source in (
            ("brightness", brightness),
            ("energies", graph.add("Concat", *energies, axis=1)),
            ("contrasts", graph.add("Concat", *contrasts, axis=1)),
        )
    )
    # Both vary by factors: their logarithms are close to the Gaussian that the statistics assume.
    energy_floor = graph.constant(f"{FROM_HALF}energy_floor", np.array([_ENERGY_FLOOR], np.float32))
    contrast_floor = graph.constant(f"{FROM_HALF}contrast_floor", np.array([_CONTRAST_FLOOR], np.float32))
    logarithms = [_logarithm(graph, energy, energy_floor), _logarithm(graph, contrast, contrast_floor)]
    graph.add("Concat", brightness, *logarithms, axis=1, output="features")
    return graph.model(
        {"image": (FLOAT, (1, 3, height, width))},
        {"features": (FLOAT, (1, CHANNELS, height // STRIDE, width // STRIDE))},
    )


class _Bank(NamedTuple):
    """Names of the constants that all levels share."""

    gabor: str
    pairs: str
    mean: str


def _oriented_energy(graph: GraphBuilder, colour: str, bank: _Bank, size: tuple[int, int]) -> str:
    luminance = graph.add("Slice", colour, graph.ints(0), graph.ints(1), graph.ints(1))
    radius = _KERNEL // 2
    # Reflected, because a zero border would be the strongest edge of the image.
    padded = graph.add("Pad", luminance, graph.ints(0, 0, radius, radius, 0, 0, radius, radius), mode="reflect")
    response = graph.add("Conv", padded, bank.gabor)
    # A convolution adds even and odd squares, because ONNX Runtime keeps the layout of the previous one.
    energy = graph.add("Sqrt", graph.add("Conv", graph.add("Mul", response, response), bank.pairs))
    surround = _local_mean(graph, _mix(graph, bank.mean, energy, size), _KERNEL)
    return graph.add("Div", energy, graph.add("Add", surround, graph.floats(_SURROUND_FLOOR)))


def _mix(graph: GraphBuilder, matrix: str, source: str, size: tuple[int, int]) -> str:
    """Multiply the channels of each pixel by a matrix; for few channels faster than a 1x1 convolution."""
    mixed = graph.add("MatMul", matrix, graph.add("Reshape", source, graph.ints(0, 0, -1)))
    return graph.add("Reshape", mixed, graph.ints(0, -1, *size))


def _contrast(graph: GraphBuilder, colour: str) -> str:
    return graph.add("Abs", graph.add("Sub", colour, _local_mean(graph, colour, _SURROUND)))


def _logarithm(graph: GraphBuilder, source: str, floor: str) -> str:
    return graph.add("Log", graph.add("Add", source, floor))


def _local_mean(graph: GraphBuilder, source: str, window: int) -> str:
    border = window // 2
    return graph.add(
        "AveragePool", source, kernel_shape=[window, window], pads=[border] * 4, strides=[1, 1], count_include_pad=0
    )


def _grid(graph: GraphBuilder, pool: str, source: str, cell: int) -> str:
    """Mean or maximum of each cell: down the columns, then along the rows, so that the CPU vectorises both."""
    columns = graph.add(pool, source, kernel_shape=[cell, 1], strides=[cell, 1])
    return graph.add(pool, columns, kernel_shape=[1, cell], strides=[1, cell])
