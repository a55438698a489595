"""Embeds images of prompts in the page as data URIs, so that it needs no other file."""

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image

from rlassay.images import open_image

LARGEST = 320
"""Pixels on the longer side of a thumbnail."""
LIGHT_ENOUGH = 40_000
"""Bytes up to which a small image is embedded unchanged."""


def inline_image(file: Path) -> dict[str, str | int]:
    """An image file as a data URI, with its size in pixels; an empty URI and size 0 if the file is absent."""
    if not file.is_file():
        return {"uri": "", "width": 0, "height": 0}
    kind = Image.MIME[Image.registered_extensions()[file.suffix.lower()]]
    return _embedded(file.read_bytes(), kind, open_image(file).size)


def thumbnail(file: Path) -> dict[str, str | int]:
    """As `inline_image`, but with a JPEG of at most `LARGEST` pixels a side in place of a large image or file."""
    if not file.is_file():
        return inline_image(file)
    image = open_image(file)
    if max(image.size) <= LARGEST and file.stat().st_size <= LIGHT_ENOUGH:
        return inline_image(file)
    image.thumbnail((LARGEST, LARGEST))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return _embedded(buffer.getvalue(), "image/jpeg", image.size)


def _embedded(content: bytes, kind: str, size: tuple[int, int]) -> dict[str, str | int]:
    return {"uri": f"data:{kind};base64,{base64.b64encode(content).decode()}", "width": size[0], "height": size[1]}
