"""Opens image files as RGB images: the one way in which data, SFT, RL and evaluation open them."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

IMAGES_IN_MEMORY = 256


class StudyImages:
    """Opens a study's images by the paths that rows give; recent ones come from memory.

    Images that repeat in a batch are one object, so never edit one in place.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._open = lru_cache(maxsize=IMAGES_IN_MEMORY)(open_image)

    def __call__(self, paths: Iterable[str]) -> list[Image.Image]:
        """The images at `paths`, relative to the study's data folder."""
        return [self._open(self.data / path) for path in paths]


def open_image(path: Path) -> Image.Image:
    """The image in a file, decoded by `to_rgb`."""
    with Image.open(path) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, rotated by its EXIF orientation, with transparent pixels composited on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright.convert("RGB")
