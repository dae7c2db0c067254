"""Options that several commands have: their types, and what ``--help`` says of them."""

from pathlib import Path
from typing import Annotated

import typer

LEARNING = "What to learn from"
NETWORK = "Backbone"
METHOD = "Detector"

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `fit` wrote.")]
Size = Annotated[str, typer.Option(metavar="HxW", help="Network input, in pixels.", rich_help_panel=LEARNING)]
DivideBrightness = Annotated[
    bool,
    typer.Option("--divide-brightness", help="Divide each frame by its own mean brightness.", rich_help_panel=LEARNING),
]
Mean = Annotated[
    str, typer.Option(metavar="R,G,B", help="Of an ONNX backbone: subtracted from 0..1.", rich_help_panel=NETWORK)
]
Std = Annotated[str, typer.Option(metavar="R,G,B", help="Of an ONNX backbone: divided by.", rich_help_panel=NETWORK)]
MemoryLimit = Annotated[int, typer.Option(help="What the statistics may take.", rich_help_panel=METHOD)]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the network; 0: one for each core.")]
