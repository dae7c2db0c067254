"""Building blocks of a page in one file: style, images and charts are inside."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from calibration.plain_text import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calibration.imaging.preprocess import Image

_JPEG_QUALITY = 85
_IMAGE_PX = 448
SPACE = "\u00a0"


def page(title: str, body: str) -> str:
    """The whole document. Its own policy forbids scripts, and everything that is not inside it."""
    style = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def section(title: str, *content: str) -> str:
    """A section under its own heading; the content is HTML."""
    inside = "\n".join(part for part in content if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names, as text, and values, as HTML."""
    lines = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows)
    return f"<table>{lines}</table>"


def bullets(lines: Iterable[str]) -> str:
    """A list of plain text."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def img(image: Image, description: str) -> str:
    """An ``<img>`` that holds the image, uint8 BGR."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    rows, columns = image.shape[:2]
    content = base64.b64encode(encoded.tobytes()).decode()
    return f'<img src="data:image/jpeg;base64,{content}" width="{columns}" height="{rows}" alt="{escape(description)}">'


def enlarged(image: Image) -> Image:
    """The image at the size at which it is shown; heat drawn on a small one would be coarse."""
    rows, columns = image.shape[:2]
    factor = _IMAGE_PX / max(rows, columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    interpolation = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=interpolation).astype("uint8", copy=False)


def number(value: float) -> str:
    """Four digits."""
    return rounded(value, 4)


def percent(rate: float) -> str:
    """A rate, 0 to 1, with two digits."""
    return f"{rounded(100 * rate, 2)}{SPACE}%"


def one_in(rate: float) -> str:
    """A rate as people say it: 1 in 120, with three digits."""
    return f"1 in {rounded(round(1 / rate), 3)}"
