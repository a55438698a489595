"""Image files as RGB images: the one way in which data, training and evaluation open them."""

from pathlib import Path

from PIL import Image, ImageOps


def open_image(path: Path) -> Image.Image:
    """The image in a file, decoded; see `to_rgb`."""
    with Image.open(path) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, rotated as its EXIF orientation says, with transparent pixels composited on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright.convert("RGB")
