"""Open image files as RGB images, the same for data, SFT, RL and evaluation."""

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray
from PIL import Image, ImageCms

MEMORY = 256 * 2**20
"""Bytes of pixels that a process keeps of images and film strips opened last."""
DEPTHS = (255.0, 4095.0, 65535.0)
"""Largest values of 8, 12 and 16 bits."""
DEEP_MODES = ("I", "F")
"""Modes of one deep channel, and all that begin with `I;16`."""
_BITS_PER_SAMPLE = 258
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> how the pixels are turned for display; 1 leaves them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """The frames of a clip that a prompt shows by the processor's video input."""

    frames: tuple[Image.Image, ...]
    """RGB, all of one size."""
    times: tuple[float, ...]
    """Seconds of each from the first frame of the clip."""
    duration: float
    """Length of the clip, seconds."""
    fps: float
    """Frames per second of the clip, on average."""


class StudyImages:
    """Opens a study's images by the paths that rows give; recent ones come from memory.

    Images that repeat in a batch are one object, so never edit one in place.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        # A film strip that alone exceeds the memory is opened again each time.
        recent: LRUCache[Any, Any] = LRUCache(MEMORY, getsizeof=_bytes_of)
        self._open = cached(recent)(open_image)
        self._frames = cached(recent)(open_strip)

    def __call__(self, paths: Iterable[str]) -> list[Image.Image]:
        """The images at `paths`, relative to the study's data folder; those of `frame_path` are frames of a clip."""
        return [self._image(path) for path in paths]

    def _image(self, path: str) -> Image.Image:
        file, mark, frame = path.partition(_FRAME)
        if not mark:
            return self._open(self.data / path)
        index, _, count = frame.partition("/")
        return self._frames(self.data / file, int(count))[int(index)]


class BlankImages(StudyImages):
    """Blank images of the sizes of a study's images, whose pixels are not read."""

    def _image(self, path: str) -> Image.Image:
        file, _, frame = path.partition(_FRAME)
        with Image.open(self.data / file) as image:
            width, height = image.size
        return _blank(width // int(frame.partition("/")[2] or 1), height)


@lru_cache(maxsize=32)
def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height))


def _bytes_of(opened: Image.Image | list[Image.Image]) -> int:
    images = opened if isinstance(opened, list) else [opened]
    return sum(3 * image.width * image.height for image in images)


_FRAME = "#frame="


def frame_path(strip: str, index: int, count: int) -> str:
    """Path by which `StudyImages` opens one frame of a film strip of `count` frames."""
    return f"{strip}{_FRAME}{index}/{count}"


def open_strip(path: Path, count: int) -> list[Image.Image]:
    """The frames of a film strip, see `split_strip`."""
    return split_strip(open_image(path), count)


def split_strip(strip: Image.Image, count: int) -> list[Image.Image]:
    """The `count` frames that an image shows side by side."""
    width = strip.width // count
    return [strip.crop((index * width, 0, (index + 1) * width, strip.height)) for index in range(count)]


def open_image(path: Path) -> Image.Image:
    """The image in a file, in the form of `to_rgb`; ValueError names the file if `load_image` rejects it."""
    try:
        return to_rgb(load_image(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_image(content: bytes) -> Image.Image:
    """The first frame of an encoded image, decoded, in the mode of its file.

    Errors: ValueError if it is unreadable, or has so many pixels that it may be a decompression bomb.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as those about damaged EXIF headers, once per image
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content))
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
        except MemoryError:
            raise
        except Exception as error:  # decoders raise errors of every kind for damaged files
            raise ValueError("unreadable") from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame as displayed: upright, on white, 8 bits per channel, in sRGB.

    - It is rotated by its EXIF orientation; an EXIF header that cannot be read states none.
    - Values of 16-bit, 32-bit and float images are scaled to 0..255, see `value_range`.
    - Colours are converted from the embedded ICC profile; a profile that does not fit the image is ignored.
    - Transparent pixels are composited on white.
    """
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    image.load()  # before the orientation is read, since the TIFF decoder already turns the pixels
    turn = _TURNS.get(_orientation(image))
    shallow = _eight_bits(image)
    rgb, alpha = _srgb(shallow), _alpha(shallow)
    if alpha is not None:
        layer = rgb.convert("RGBA")
        layer.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def is_plain(image: Image.Image) -> bool:
    """Whether any viewer shows the pixels of `to_rgb`, so that the file can be kept."""
    return (
        image.mode == "RGB"
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
        and _orientation(image) not in _TURNS
        and _profile_transform(image.info.get("icc_profile"), "RGB") is None
    )


def value_range(values: NDArray[Any], bits: int | None = None) -> tuple[float, float]:
    """The values of a deep image that become black and white.

    Containers of 16 and 32 bits often hold fewer: the range is the smallest of 8, 12 and 16 bits that holds all values,
    or [0, 1] for floats. Multiples of 257 are 8 bits spread over 16. Values that fit none of these, such as negative
    ones, span the range themselves.

    Args:
        values: finite numbers.
        bits: bits per value, if the file states them and they are not those of the container.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > DEPTHS[-1]:
        return min(low, 0.0), high
    if bits is not None:
        return 0.0, 2.0**bits - 1
    if values.dtype.kind == "f" and high <= 1:
        return 0.0, 1.0
    if high > DEPTHS[0] and values.dtype.kind != "f" and not (values % 257).any():
        return 0.0, DEPTHS[-1]
    return 0.0, next(depth for depth in DEPTHS if high <= depth)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A deep image as grey levels of 8 bits; any other image itself.

    It has alpha if one of its values is transparent.
    """
    if image.mode not in DEEP_MODES and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=float(DEPTHS[-1]), neginf=0.0)
    low, high = value_range(values, _declared_bits(image))
    scaled = (values.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    grey = Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    grey.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return grey


def _declared_bits(image: Image.Image) -> int | None:
    """Bits per value in a TIFF file's tag, if fewer than those of the container."""
    tags: Any = getattr(image, "tag_v2", None)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0] if tags else 16
    return bits if 8 < bits < 16 else None


def _orientation(image: Image.Image) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return image.getexif().get(_ORIENTATION, 1)
        except Exception:  # a damaged header raises errors of every kind, and orients nothing
            return 1


def _alpha(image: Image.Image) -> Image.Image | None:
    """The opacity of each pixel; None for an opaque image."""
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return None
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA").getchannel("A")


def _srgb(image: Image.Image) -> Image.Image:
    """The colours in sRGB, without alpha."""
    if image.mode in ("LA", "La"):
        colours = image.convert("LA").getchannel("L")
    else:
        colours = image if image.mode in ("L", "CMYK", "LAB") else _rgb(image)
    profile = image.info.get("icc_profile")
    for candidate in (colours, None if colours.mode in ("RGB", "LAB") else colours.convert("RGB")):
        transform = candidate and _profile_transform(profile, candidate.mode)
        if candidate is not None and transform is not None:
            converted = ImageCms.applyTransform(candidate, transform)
            if converted is not None:
                return converted
    return colours.convert("RGB")


def _rgb(image: Image.Image) -> Image.Image:
    """The colours in RGB, those of transparent pixels included."""
    return image.convert("RGBA").convert("RGB") if image.mode in ("RGBa", "PA", "P") else image.convert("RGB")


def _made_profile(space: Literal["LAB", "sRGB"]) -> ImageCms.ImageCmsProfile:
    made = ImageCms.createProfile(space)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return ImageCms.ImageCmsProfile(cast("Any", made))


@lru_cache(maxsize=32)
def _profile_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From colours of an ICC profile in a mode to sRGB; None if they are sRGB already, or the profile does not fit."""
    if mode == "LAB":
        return ImageCms.buildTransform(_made_profile("LAB"), _made_profile("sRGB"), "LAB", "RGB")
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).lower()
        if "srgb" in name and "linear" not in name:
            return None
        return ImageCms.buildTransform(source, _made_profile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
