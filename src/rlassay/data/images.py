"""The images of a study: one file per content, named by its digest."""

import hashlib
import io
import warnings
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlassay.config.data import ImagePolicy
from rlassay.data.drafts import RowRefusedError
from rlassay.data.duplicates import Digests, digest_of
from rlassay.files import sha256
from rlassay.images import to_rgb
from rlassay.records import Media

# MERGED FROM data.images: The images of a study: one file per content, named by its digest.

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
"""Formats that are accepted, with their file names' endings."""


class Images:
    """Receives images into `<data>/images/`; what an earlier run left there goes with `prune`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data / "images"
        self._names = Digests()
        self._digest = hashlib.sha256()
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes, suffix: str = "png", prefix: str | None = None) -> Media:
        """Keep a file's content under `images/<sha256, 16 digits>.<suffix>`, or `<prefix>_<8 digits>.<suffix>`."""
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:16]}.{suffix}" if prefix is None else f"{prefix}_{digest[:8]}.{suffix}"
        if self._note(name):
            (self.folder / name).write_bytes(content)
        return Media(path=f"images/{name}")

    def recall(self, path: str, digest: str) -> bool:
        """Whether an image that an earlier attempt added is there as it was; then it counts as added again."""
        try:
            sound = sha256(self.data / path) == digest
        except OSError:
            return False
        if sound:
            self._note(path.removeprefix("images/"))
        return sound

    def prune(self) -> None:
        """Remove every image that was not added."""
        for file in self.folder.iterdir():
            if digest_of(file.name) not in self._names:
                file.unlink()

    def digest(self) -> str:
        """One sha256 for all images, over their names in the order of the rows: a name is a digest of the content."""
        return self._digest.hexdigest()

    def _note(self, name: str) -> bool:
        """Whether the name is new."""
        if not self._names.add(digest_of(name)):
            return False
        self._digest.update(f"{name}\n".encode())
        return True


def media_path(digest: str, suffix: str) -> str:
    """How a prompt's key names an image: by its content, wherever and however it is stored."""
    return f"images/{digest[:16]}.{suffix}"


# MERGED FROM data.image_policy: One policy for the images of every source: read in any form, RGB, within
# limits, or refused with a reason.

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
    image = _fit(to_rgb(original), policy)
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
