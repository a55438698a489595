"""Images of a study: decode them, limit their size, hash and store them by digest."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from rlassay.config.data import ImagePolicy
from rlassay.data.duplicates import DigestSet, digest_of
from rlassay.data.raw_examples import LONGEST_DETAIL, RowRejectedError
from rlassay.files import sha256
from rlassay.images import is_plain, load_image, to_rgb
from rlassay.records import Media

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
"""Accepted formats and their file name endings."""
HASH_SIDE = 16
BRIGHTER = 4
"""Grey levels of 255 by which a pixel counts as brighter than its left neighbour; less is compression noise."""


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """An image as it will be stored."""

    content: bytes
    """The file's bytes."""
    suffix: str
    """The file name's ending."""
    image: Image.Image
    """The decoded image."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.content).hexdigest()


def encode_image(value: Any, root: Path | None, policy: ImagePolicy | None, *, jpeg: bool) -> EncodedImage:
    """The image in RGB and within the policy's limits, encoded.

    Bytes that comply are kept unchanged; others become PNG, or JPEG of quality 95 with `jpeg`. Without a policy every
    image in an accepted format is kept unchanged.

    Errors: RowRejectedError with the reason, and the file as its detail.
    """
    value = _unwrapped(value)
    try:
        original, content = read_image(value, root)
        return _encoded(original, content, policy, jpeg=jpeg)
    except RowRejectedError as rejected:
        if isinstance(value, str) and value and root is not None and not rejected.detail:
            _at(root / value, rejected)
        raise


def _encoded(original: Image.Image, content: bytes | None, policy: ImagePolicy | None, *, jpeg: bool) -> EncodedImage:
    if policy is None:
        if content is None or original.format not in SUFFIXES:
            raise RowRejectedError(f"image: its format is none of {', '.join(SUFFIXES)}")
        return EncodedImage(content=content, suffix=SUFFIXES[original.format], image=to_rgb(original))
    image = resized(to_rgb(original), policy)
    unchanged = image.size == original.size and is_plain(original)
    if content is not None and unchanged and original.format in SUFFIXES and (original.format == "JPEG" or not jpeg):
        return EncodedImage(content=content, suffix=SUFFIXES[original.format], image=image)
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=95) if jpeg else image.save(encoded, format="PNG")
    return EncodedImage(content=encoded.getvalue(), suffix="jpg" if jpeg else "png", image=image)


def read_image(value: Any, root: Path | None) -> tuple[Image.Image, bytes | None]:
    """The decoded image, and the encoded bytes behind it (None for a PIL image).

    Args:
        value: bytes, a PIL image, a path below `root`, or a (nested) mapping with `bytes`, `path` or `image`.
        root: the folder that a path may not leave; None rejects paths.

    Errors: RowRejectedError with the reason.
    """
    value = _unwrapped(value)
    if isinstance(value, Image.Image):
        return value, None
    content = bytes(value) if isinstance(value, bytes | bytearray) else resolve_below(value, root, "image").read_bytes()
    try:
        return load_image(content), content
    except ValueError as error:
        raise RowRejectedError(f"image: {error}") from None


def _unwrapped(value: Any) -> Any:
    """The image, its bytes or its path in (nested) mappings."""
    while isinstance(value, dict):
        mapping = cast("Mapping[str, Any]", value)
        value = next((mapping[key] for key in ("bytes", "path", "image") if mapping.get(key) is not None), None)
    return value


def resolve_below(value: Any, root: Path | None, what: str) -> Path:
    """The existing file at a path below `root`; RowRejectedError if the path leaves `root` or has no file."""
    if not isinstance(value, str) or not value:
        raise RowRejectedError(f"{what}: it is missing" if value is None else f"{what}: neither a path nor bytes")
    if root is None:
        raise RowRejectedError(f"{what}: a path, but the source has no data root")
    try:
        file = (root / value).resolve()
        if not file.is_relative_to(root.resolve()):
            raise _at(file, RowRejectedError(f"{what}: its path leaves the data root"))
        if not file.is_file():
            raise _at(file, RowRejectedError(f"{what}: no such file"))
    except (ValueError, OSError):
        raise RowRejectedError(f"{what}: not a possible path") from None
    return file


def _at(file: Path, rejected: RowRejectedError) -> RowRejectedError:
    """The rejection with the file as its detail."""
    rejected.detail = str(file)[:LONGEST_DETAIL]
    return rejected


def perceptual_hash(image: Image.Image) -> str:
    """Perceptual hash of an image: 256 bits in 64 hex digits.

    The bits show where a 16x17 grey thumbnail becomes clearly brighter from left to right.

    Source: N. Krawetz, "Kind of Like That" (dHash, 2013); the margin BRIGHTER is added, so that compression noise does
    not flip bits.
    """
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] - grey[:, :-1] > BRIGHTER).tobytes().hex()


def media_path(digest: str, suffix: str) -> str:
    """Relative path of an image, named by the first 16 hex digits of its digest."""
    return f"images/{digest[:16]}.{suffix}"


class ImageStore:
    """Writes the images of a study to `<data>/images/`, one file per content."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data / "images"
        self._names = DigestSet()
        self._digest = hashlib.sha256()
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes, suffix: str = "png", prefix: str | None = None) -> Media:
        """Store a file as `images/<sha256, 16 digits>.<suffix>`, or `images/<prefix>_<8 digits>.<suffix>`."""
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:16]}.{suffix}" if prefix is None else f"{prefix}_{digest[:8]}.{suffix}"
        if self._register(name):
            (self.folder / name).write_bytes(content)
        return Media(path=f"images/{name}")

    def restore(self, path: str, digest: str) -> bool:
        """Whether an image of an earlier attempt is unchanged on disk; if so, it counts as added."""
        try:
            unchanged = sha256(self.data / path) == digest
        except OSError:
            return False
        if unchanged:
            self._register(path.removeprefix("images/"))
        return unchanged

    def prune(self) -> None:
        """Delete the files that were not added, which an earlier run left."""
        for file in self.folder.iterdir():
            if digest_of(file.name) not in self._names:
                file.unlink()

    def digest(self) -> str:
        """SHA-256 over the names of all images in row order; a name is a digest of the content."""
        return self._digest.hexdigest()

    def _register(self, name: str) -> bool:
        """Whether the name is new."""
        if not self._names.add(digest_of(name)):
            return False
        self._digest.update(f"{name}\n".encode())
        return True


def resized(image: Image.Image, policy: ImagePolicy) -> Image.Image:
    """The image within the policy's limits; RowRejectedError if a side is too long for it."""
    width, height = image.size
    scale = 1.0
    if max(width, height) > policy.max_side:
        if policy.too_large == "drop":
            raise RowRejectedError(f"image: a side above {policy.max_side} pixels")
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
