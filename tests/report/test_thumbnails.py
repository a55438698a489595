"""Small images are taken as they are, large ones are made small."""

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from rlassay.report.thumbnails import LARGEST, thumbnail


def test_small_images_are_taken_as_they_are(tmp_path: Path):
    path = tmp_path / "digit.png"
    Image.new("L", (16, 12), 200).save(path)
    shown = thumbnail(path)
    assert (shown["width"], shown["height"]) == (16, 12)
    assert base64.b64decode(str(shown["uri"]).split(",")[1]) == path.read_bytes()
    assert thumbnail(tmp_path / "gone.png")["uri"] == ""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_large_images_are_made_small(tmp_path: Path, mode: str):
    path = tmp_path / "photo.png"
    Image.new(mode, (1000, 500)).save(path)
    kind, encoded = str(thumbnail(path)["uri"]).split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(encoded))) as small:
        assert small.size == (LARGEST, LARGEST // 2)
        assert small.getpixel((0, 0)) == ((255, 255, 255) if mode == "RGBA" else (0, 0, 0))
