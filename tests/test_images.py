"""Opening images: upright, opaque, RGB."""

from PIL import Image

from rlassay.images import open_image


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
