"""Images of the page: small files are embedded unchanged, large ones scaled down."""

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from rlassay.report.typeset import LARGEST, inline_image, thumbnail


def test_small_files_are_embedded_unchanged(tmp_path: Path):
    path = tmp_path / "digit.png"
    Image.new("L", (16, 12), 200).save(path)
    for shown in (thumbnail(path), inline_image(path)):
        assert (shown["width"], shown["height"]) == (16, 12)
        kind, encoded = str(shown["uri"]).split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(encoded) == path.read_bytes()


def test_frames_of_a_film_strip_are_divided_where_they_are_wide_enough(tmp_path: Path):
    path = tmp_path / "strip.png"
    Image.new("RGB", (160, 30)).save(path)  # four black frames
    kind, encoded = str(thumbnail(path, 4)["uri"]).split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(encoded))) as shown:
        assert shown.size == (160, 30)
        levels = [max(shown.convert("L").crop((x, 10, x + 1, 20)).tobytes()) for x in range(160)]
    assert [x for x, level in enumerate(levels) if level > 128] == [39, 40, 79, 80, 119, 120]
    Image.new("RGB", (124, 30)).save(path)  # of 31 pixels
    assert thumbnail(path, 4) == inline_image(path)


def test_an_absent_file_has_no_uri(tmp_path: Path):
    absent = {"uri": "", "width": 0, "height": 0}
    assert thumbnail(tmp_path / "gone.png") == inline_image(tmp_path / "gone.png") == absent


def test_the_size_of_a_rotated_photo_is_the_upright_one(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # rotated by a quarter turn
    Image.new("RGB", (16, 12)).save(tmp_path / "photo.jpg", exif=exif)
    shown = inline_image(tmp_path / "photo.jpg")
    assert (shown["width"], shown["height"]) == (12, 16)


def test_large_images_are_embedded_in_full_outside_thumbnails(tmp_path: Path):
    path = tmp_path / "photo.webp"
    Image.new("RGB", (1000, 500)).save(path)
    shown = inline_image(path)
    assert (shown["width"], shown["height"]) == (1000, 500)
    assert str(shown["uri"]).startswith("data:image/webp;base64,")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_thumbnails_of_large_images_are_scaled_down(tmp_path: Path, mode: str):
    path = tmp_path / "photo.png"
    Image.new(mode, (1000, 500)).save(path)
    kind, encoded = str(thumbnail(path)["uri"]).split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(encoded))) as small:
        assert small.size == (LARGEST, LARGEST // 2)
        assert small.getpixel((0, 0)) == ((255, 255, 255) if mode == "RGBA" else (0, 0, 0))
