"""Opening images: upright, opaque, 8 bits, sRGB, one frame, whatever the file."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from rlassay import images
from rlassay.images import is_plain, load_image, open_image, to_rgb


def test_an_image_is_rotated_as_its_exif_orientation_says(tmp_path):
    image = Image.new("RGB", (3, 2), "black")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the image is shown after a turn by 90 degrees to the right
    image.save(tmp_path / "turned.png", exif=exif)

    opened = open_image(tmp_path / "turned.png")

    assert opened.size == (2, 3)
    assert opened.getpixel((1, 0)) == (255, 0, 0)


def test_transparent_pixels_are_white_whatever_color_they_hide(tmp_path):
    image = Image.new("RGBA", (2, 1), (0, 0, 255, 0))
    image.putpixel((1, 0), (0, 0, 255, 255))
    image.save(tmp_path / "alpha.png")

    opened = open_image(tmp_path / "alpha.png")

    assert (opened.mode, opened.getpixel((0, 0)), opened.getpixel((1, 0))) == ("RGB", (255, 255, 255), (0, 0, 255))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(top, dtype):
    """256 x 1 values from 0 to `top`, linear."""
    return (
        np.linspace(0, top, 256).round().astype(dtype)[None, :]
        if np.dtype(dtype).kind != "f"
        else (np.linspace(0, top, 256, dtype=dtype)[None, :])
    )


DEEP = {
    "16 bits": Image.fromarray(ramp(65535, np.uint16)),
    "16 bits, big-endian": Image.fromarray(ramp(65535, ">u2")),
    "12 bits in 16": Image.fromarray(ramp(4095, np.uint16)),
    "8 bits in 16": Image.fromarray(ramp(255, np.uint16)),
    "16 bits in 32": Image.fromarray(ramp(65535, np.int32)),
    "12 bits in 32": Image.fromarray(ramp(4095, np.int32)),
    "8 bits in 32": Image.fromarray(ramp(255, np.int32)),
    "31 bits": Image.fromarray(ramp(2**31 - 1, np.int32)),
    "signed": Image.fromarray(ramp(65535, np.int32) - 32768),
    "float in [0, 1]": Image.fromarray(ramp(1, np.float32)),
    "float of 8 bits": Image.fromarray(ramp(255, np.float32)),
    "float of 16 bits": Image.fromarray(ramp(65535, np.float32)),
    "8 bits": Image.fromarray(ramp(255, np.uint8)),
}


@pytest.mark.parametrize("image", DEEP.values(), ids=DEEP)
def test_deep_images_are_scaled_to_eight_bits(image):
    """A linear ramp over the range of its values is the ramp 0, 1, ..., 255 in each channel."""
    shown = np.asarray(to_rgb(image)).astype(int)
    assert shown.shape == (1, 256, 3)
    assert np.abs(shown - np.arange(256)[None, :, None]).max() <= 1


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (9 * 257, 9), (128 * 257, 128), (65535, 255), (32768, 128)])
def test_flat_images_of_sixteen_bits(value, grey):
    assert to_rgb(Image.new("I;16", (2, 2), value)).getpixel((0, 0)) == (grey,) * 3


def test_what_is_no_number_is_black():
    image = Image.fromarray(np.array([[np.nan, 0.5, 1]], np.float32))
    assert [to_rgb(image).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_becomes_rgb(mode):
    """A mid-grey and a white pixel; one bit has only black and white, and palettes only nearby colours."""
    image = Image.new("RGB", (2, 1), (255, 255, 255))
    image.putpixel((0, 0), (96, 96, 96))
    steps = {"La": ["LA"], "RGBa": ["RGBA"], "PA": ["P"], "LA": ["L"]}.get(mode, [])
    for step in [*steps, mode]:
        image = image.convert(step)
    shown = to_rgb(image)
    assert shown.mode == "RGB"
    assert shown.getpixel((1, 0)) == (255, 255, 255)
    assert abs(shown.getpixel((0, 0))[1] - (0 if mode == "1" else 96)) <= 6


def test_lab_colours_become_srgb():
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), (200, 30, 40)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert np.abs(np.asarray(to_rgb(lab)).astype(int) - (200, 30, 40)).max() <= 3


@pytest.mark.parametrize(
    ("mode", "clear", "seen"),
    [("LA", (0, 0), (255, 255, 255)), ("RGBA", (9, 9, 9, 0), (255, 255, 255)), ("RGBA", (0, 0, 0, 51), (204,) * 3)],
)
def test_transparency_shows_white(mode, clear, seen):
    assert to_rgb(Image.new(mode, (1, 1), clear)).getpixel((0, 0)) == seen


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "I;16"])
def test_a_transparent_colour_of_a_png_shows_white(mode):
    key = {"L": 7, "P": 0, "RGB": (7, 7, 7), "I;16": 7 * 257}[mode]
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), {"L": 128, "P": 1, "RGB": (128,) * 3, "I;16": 128 * 257}[mode])
    if mode == "P":
        image.putpalette([7, 7, 7, 128, 128, 128])
    shown = to_rgb(load_image(encoded(image, transparency=key)))
    assert [shown.getpixel((x, 0)) for x in range(2)] == [(255,) * 3, (128,) * 3]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_every_orientation_is_undone(kind, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(pixels), kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(load_image(content))
    assert to_rgb(load_image(content)).tobytes() == expected.tobytes()
    if kind != "TIFF":  # whose decoder turns the pixels
        assert is_plain(load_image(content)) == (orientation == 1)


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF header", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_exif_header_is_ignored(kind, exif):
    image = Image.new("RGB", (4, 2), "red")
    shown = to_rgb(load_image(encoded(image, kind, exif=exif)))
    assert (shown.mode, shown.size) == ("RGB", (4, 2))


def swapped_profile():
    """sRGB with red and green primaries swapped: its red is shown as green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile).replace("sRGB built-in".encode("utf-16-be"), "swapped color".encode("utf-16-be"))


def test_colours_are_converted_from_the_embedded_profile():
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    content = encoded(red, icc_profile=swapped_profile())
    assert np.abs(np.asarray(to_rgb(load_image(content))).astype(int) - (0, 255, 0)).max() <= 2
    assert not is_plain(load_image(content))
    clear = red.convert("RGBA")
    clear.putalpha(0)
    assert to_rgb(load_image(encoded(clear, icc_profile=swapped_profile()))).getpixel((0, 0)) == (255, 255, 255)
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (standard, b"no profile"):
        assert to_rgb(load_image(encoded(red, icc_profile=profile))).getpixel((0, 0)) == (255, 0, 0)
        assert is_plain(load_image(encoded(red, icc_profile=profile)))
    # a profile of RGB on a grey image, which fits only after the conversion
    grey = to_rgb(load_image(encoded(Image.new("L", (1, 1), 128), icc_profile=swapped_profile())))
    assert np.abs(np.asarray(grey).astype(int) - 128).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_shown(kind):
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert to_rgb(load_image(content)).getpixel((0, 0)) == (255, 0, 0)
    later = Image.open(io.BytesIO(content))
    later.seek(2)
    assert to_rgb(later).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("factor", [1, 3])
def test_decompression_bombs_are_rejected_in_every_stage(tmp_path, monkeypatch, factor):
    """Pillow only warns between once and twice its limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "bomb.png").write_bytes(encoded(Image.new("L", (101 * factor, 1))))
    with pytest.raises(ValueError, match=r"bomb.png: more than 100 pixels"):
        open_image(tmp_path / "bomb.png")
    (tmp_path / "torn.png").write_bytes(encoded(Image.new("RGB", (50, 1)))[:40])
    with pytest.raises(ValueError, match=r"torn.png: unreadable"):
        open_image(tmp_path / "torn.png")


def test_images_and_strips_share_a_memory_of_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MEMORY", 3 * (4 * 5 + 2 * 6 * 7))  # for the image and one strip of two frames
    for name, size in {"a": (4, 5), "b": (2 * 6, 7), "c": (2 * 6, 7), "long": (90 * 6, 7)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    study = images.StudyImages(tmp_path)

    def opened(path: str) -> Image.Image:
        return study([path])[0]

    b, c = (images.frame_path(f"{name}.png", 1, 2) for name in "bc")
    first_b, first_a = opened(b), opened("a.png")
    assert first_b.size == (6, 7)
    assert opened(b) is first_b
    assert opened("a.png") is first_a
    first_c = opened(c)  # replaces b, which was not opened for longest
    assert opened("a.png") is first_a
    assert opened(b) is not first_b
    assert opened(c) is not first_c
    long = images.frame_path("long.png", 3, 90)  # larger than the memory, and opened all the same
    assert opened(long) is not opened(long)
