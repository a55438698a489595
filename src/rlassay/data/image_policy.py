"""One policy for the images of every source: read in any form, RGB, within limits, or refused with a reason."""

import io
import warnings
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rlassay.config.data import ImagePolicy
from rlassay.data.drafts import RowRefusedError
from rlassay.data.images import SUFFIXES

HASH_SIDE = 16
FAINT = 4
"""Grey levels of 255 by which a pixel must be brighter than its left neighbour to count; less is compression noise."""


def read_image(value: Any, root: Path | None) -> tuple[Image.Image, bytes | None]:
    """The decoded image, and the encoded bytes it came from (None for a PIL image).

    Args:
        value: bytes, a PIL image, a path below `root`, or a mapping with `bytes`, `path` or `image`, nested at will.
        root: the folder that a path may not leave; None refuses paths.

    Errors: RowRefusedError with the reason.
    """
    if isinstance(value, dict):
        inner = next((value[key] for key in ("bytes", "path", "image") if value.get(key) is not None), None)
        return read_image(inner, root)
    if isinstance(value, Image.Image):
        return _decoded(value), None
    content = bytes(value) if isinstance(value, bytes | bytearray) else below(value, root, "image").read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RowRefusedError("image: unreadable") from None
    return _decoded(image), content


def below(value: Any, root: Path | None, what: str) -> Path:
    """The existing file that a path names below `root`; RowRefusedError if it leads outside, or to no file."""
    if not isinstance(value, str) or not value:
        raise RowRefusedError(f"{what}: it is missing" if value is None else f"{what}: neither a path nor bytes")
    if root is None:
        raise RowRefusedError(f"{what}: a path, but the source has no data root")
    try:
        file = (root / value).resolve()
        if not file.is_relative_to(root.resolve()):
            raise RowRefusedError(f"{what}: its path leaves the data root")
        if not file.is_file():
            raise RowRefusedError(f"{what}: no such file")
    except (ValueError, OSError):
        raise RowRefusedError(f"{what}: not a possible path") from None
    return file


def encode(value: Any, root: Path | None, policy: ImagePolicy | None, jpeg: bool) -> tuple[bytes, str, Image.Image]:
    """The image as it is stored, its file name's ending, and the image itself, RGB and within the limits.

    Bytes that comply already are kept as they are; others become PNG, or JPEG of quality 95 where `jpeg` is set.
    Without a policy every image in an accepted format is kept as it is.
    """
    original, content = read_image(value, root)
    if policy is None:
        if content is None or original.format not in SUFFIXES:
            raise RowRefusedError(f"image: its format is none of {', '.join(SUFFIXES)}")
        return content, SUFFIXES[original.format], original
    image = _fit(_to_rgb(original), policy)
    untouched = original.mode == "RGB" and image.size == original.size and not original.getexif().get(0x0112)
    if content is not None and untouched and original.format in SUFFIXES and (original.format == "JPEG" or not jpeg):
        return content, SUFFIXES[original.format], image
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=95) if jpeg else image.save(encoded, format="PNG")
    return encoded.getvalue(), "jpg" if jpeg else "png", image


def perceptual_hash(image: Image.Image) -> str:
    """256 bits in 64 hex digits: where a 16x17 grey miniature grows clearly brighter from left to right.

    Source: N. Krawetz, "Kind of Like That" (dHash, 2013); here with a margin, which compression noise does not cross.
    """
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] - grey[:, :-1] > FAINT).tobytes().hex()


def _decoded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise RowRefusedError("image: unreadable") from None
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Turned upright as its camera says, what is transparent shown on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright.convert("RGB")


def _fit(image: Image.Image, policy: ImagePolicy) -> Image.Image:
    width, height = image.size
    scale = 1.0
    if max(width, height) > policy.max_side:
        if policy.too_large == "drop":
            raise RowRefusedError(f"image: a side above {policy.max_side} pixels")
        scale = policy.max_side / max(width, height)
    pixels = width * height
    if policy.max_pixels is not None:
        scale = min(scale, sqrt(policy.max_pixels / pixels))
    if policy.min_pixels is not None and pixels * scale**2 < policy.min_pixels:
        scale = min(sqrt(policy.min_pixels / pixels), policy.max_side / max(width, height))
    if scale == 1.0:
        return image
    rounded = round if scale > 1 else int
    return image.resize((max(1, rounded(width * scale)), max(1, rounded(height * scale))), Image.Resampling.BICUBIC)
