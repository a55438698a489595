"""Images of prompts, small enough to be part of the page."""

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image

LARGEST = 320
"""Pixels on the longer side of a thumbnail."""
LIGHT_ENOUGH = 40_000
"""Bytes up to which a file that is small enough is taken as it is."""


def thumbnail(file: Path) -> dict[str, str | int]:
    """A small version of an image as a data URI, with its size in pixels; without one when the file is absent."""
    if not file.is_file():
        return {"uri": "", "width": 0, "height": 0}
    with Image.open(file) as image:
        content, kind, size = file.read_bytes(), Image.MIME[image.format or "PNG"], image.size
        if max(size) > LARGEST or len(content) > LIGHT_ENOUGH:
            content, kind, size = _shrunk(image)
    uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return {"uri": uri, "width": size[0], "height": size[1]}


def _shrunk(image: Image.Image) -> tuple[bytes, str, tuple[int, int]]:
    image.draft("RGB", (2 * LARGEST, 2 * LARGEST))  # lets the JPEG decoder skip what will not be seen
    small = image.convert("RGBA")
    small.thumbnail((LARGEST, LARGEST))
    paper = Image.new("RGB", small.size, "white")
    paper.paste(small, mask=small)
    buffer = BytesIO()
    paper.save(buffer, "JPEG", quality=80)
    return buffer.getvalue(), "image/jpeg", paper.size
