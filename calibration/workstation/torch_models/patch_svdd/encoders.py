"""The encoders of Patch SVDD (Yi and Yoon 2020), on patches for training and over whole frames as an ONNX graph."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from calibration.detectors.patch_svdd import COARSE, FINE
from calibration.onnx_graph import FLOAT, GraphBuilder

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

CHANNELS = 64
_FINE_CHANNELS = (3, 32, 64, 128, 128, 64, 32, 32, CHANNELS)
_COARSE_CHANNELS = (CHANNELS, 128, CHANNELS)
_HIDDEN = 128
_DIRECTIONS = 8
_SLOPE = 0.1


class Encoders(nn.Module):
    """Patches to features, (n, 64): small ones by eight convolutions, large ones from the features of their quarters.

    ``fine`` holds eight 3x3 convolutions, the first of stride 2, and ``coarse`` a 2x2 and a 1x1 one; none is padded.
    """

    def __init__(self, *, he: bool = True) -> None:
        """Draw the weights: by He et al. 2015, or by torch's default."""
        super().__init__()
        sides = zip(_FINE_CHANNELS, _FINE_CHANNELS[1:], (2, *[1] * 7), strict=False)
        self.fine = nn.ModuleList(nn.Conv2d(before, after, 3, stride) for before, after, stride in sides)
        widths = zip(pairwise(_COARSE_CHANNELS), (2, 1), strict=True)
        self.coarse = nn.ModuleList(nn.Conv2d(before, after, side) for (before, after), side in widths)
        for layer in (*self.fine, *self.coarse) if he else ():
            # With torch's default, each layer's output is smaller than its input; short training does not repair it.
            nn.init.kaiming_normal_(layer.weight, _SLOPE)
            nn.init.zeros_(layer.bias)

    def small(self, patches: torch.Tensor) -> torch.Tensor:
        """(n, 3, 32, 32) to (n, 64)."""
        return _through(self.fine, patches).flatten(1)

    def large(self, patches: torch.Tensor) -> torch.Tensor:
        """(n, 3, 64, 64) to (n, 64)."""
        half = FINE.side
        quarters = [patches[..., top : top + half, left : left + half] for top in (0, half) for left in (0, half)]
        features = self.small(torch.cat(quarters)).reshape(2, 2, len(patches), -1)
        with torch.autocast("cpu", enabled=False):
            return _through(self.coarse, features.permute(2, 3, 0, 1)).flatten(1)


def _through(layers: nn.ModuleList, flow: torch.Tensor) -> torch.Tensor:
    """All layers; the last in full precision, since the losses are of small differences between features."""
    for layer in layers[:-1]:
        flow = nn.functional.leaky_relu(layer(flow), _SLOPE)
    with torch.autocast("cpu", enabled=False):
        return torch.tanh(layers[-1](flow.to(next(layers.parameters()).dtype)))


def position_classifier(*, scaled: bool = False) -> nn.Sequential:
    """Difference of the features of two neighbours to the direction from one to the other, of eight (section 3.2).

    ``scaled`` gives the last layer what the authors' code gives it: columns of length 1 that are not trained.
    """
    layers = nn.Linear(CHANNELS, _HIDDEN), nn.LeakyReLU(_SLOPE), nn.Linear(_HIDDEN, _HIDDEN), nn.LeakyReLU(_SLOPE)
    last = nn.Linear(_HIDDEN, _DIRECTIONS)
    if scaled:
        last.weight = nn.Parameter(nn.functional.normalize(last.weight.detach(), dim=0), requires_grad=False)
    return nn.Sequential(*layers, last)


def over_frames(encoders: Encoders, height: int, width: int, mean: Float32 | None = None) -> onnx.ModelProto:
    """The encoders at every step of a frame: what patches share is computed once.

    Small patches begin ``FINE.stride`` pixels apart, which takes a last stride of 2 after the first one. The quarters
    of a large patch lie ``FINE.side`` pixels apart, which is 8 steps: the dilation of the 2x2 convolution. The mean
    image, (height, width, 3), is subtracted first if there is one.

    Returns:
        Model from ``image`` (1, 3, height, width), with sides that are multiples of 16, at least 64, to ``fine``
        (1, 64, height / 4 - 7, width / 4 - 7) and ``coarse`` (1, 64, height / 16 - 3, width / 16 - 3).
    """
    graph = GraphBuilder("patch_svdd")
    flow = "image"
    if mean is not None:
        flow = graph.add("Sub", flow, graph.constant("mean_image", mean.transpose(2, 0, 1)[None]))
    last = len(encoders.fine) - 1
    for number, layer in enumerate(encoders.fine):
        stride = {0: 2, last: FINE.stride // 2}.get(number, 1)
        flow = _convolution(graph, flow, layer, stride=stride, output="fine" if number == last else None)
    half, step = FINE.side // FINE.stride, COARSE.stride // FINE.stride
    flow = _convolution(graph, flow, encoders.coarse[0], stride=step, dilation=half)
    _convolution(graph, flow, encoders.coarse[1], output="coarse")
    return graph.model(
        {"image": (FLOAT, (1, 3, height, width))},
        {
            name: (FLOAT, (1, CHANNELS, *field.grid(height, width)))
            for name, field in (("fine", FINE), ("coarse", COARSE))
        },
    )


def _convolution(  # noqa: PLR0913 - the attributes of a convolution
    graph: GraphBuilder, flow: str, layer: nn.Module, *, stride: int = 1, dilation: int = 1, output: str | None = None
) -> str:
    """A layer and its activation: tanh where the output has a name, which the last layer has, else a leaky ReLU."""
    weights = [
        graph.constant(f"{name}.{len(graph.initializers)}", tensor.numpy())
        for name, tensor in layer.state_dict().items()
    ]
    convolved = graph.add("Conv", flow, *weights, strides=[stride] * 2, dilations=[dilation] * 2)
    return graph.add("Tanh", convolved, output=output) if output else graph.add("LeakyRelu", convolved, alpha=_SLOPE)
