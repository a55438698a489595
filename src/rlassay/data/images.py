"""The images of a study: one file per content, named by its digest."""

import hashlib
import io
import warnings
from pathlib import Path

from PIL import Image

from rlassay.records import Media

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
"""Formats that are accepted, with their file names' endings."""


class Images:
    """Receives images into `<data>/images/`; what an earlier run left there goes with `prune`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data / "images"
        self.names: set[str] = set()
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes, suffix: str = "png", prefix: str | None = None) -> Media:
        """Keep a file's content under `images/<sha256, 16 digits>.<suffix>`, or `<prefix>_<8 digits>.<suffix>`."""
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:16]}.{suffix}" if prefix is None else f"{prefix}_{digest[:8]}.{suffix}"
        if name not in self.names:
            (self.folder / name).write_bytes(content)
            self.names.add(name)
        return Media(path=f"images/{name}")

    def prune(self) -> None:
        """Remove every image that was not added."""
        for file in self.folder.iterdir():
            if file.name not in self.names:
                file.unlink()

    def digest(self) -> str:
        """One sha256 for all images: their names are digests of their contents."""
        return hashlib.sha256("\n".join(sorted(self.names)).encode()).hexdigest()


def image_suffix(content: bytes) -> str:
    """The file name's ending for an encoded image, after decoding it whole.

    Errors: ValueError if it cannot be decoded, is too large to be decoded safely, or has a format not in SUFFIXES.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                kind = image.format or "no format"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"unreadable ({str(error)[:100]}); expected an image that Pillow can decode") from None
    if kind not in SUFFIXES:
        raise ValueError(f"its format is {kind}; expected one of {', '.join(SUFFIXES)}")
    return SUFFIXES[kind]
