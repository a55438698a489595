import io

import pytest
from PIL import Image

from rlassay.data.images import Images, image_suffix


def encoded(kind, size=(4, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, format=kind)
    return buffer.getvalue()


def test_equal_contents_share_a_file_and_leftovers_are_removed(tmp_path):
    earlier = Images(tmp_path).add(b"old")
    images = Images(tmp_path)
    first, again, other = images.add(b"new"), images.add(b"new"), images.add(b"newer", "jpg")
    assert first == again
    # sha256(b"new") = 11507a0e2f5e69d5... (sha256sum)
    assert first.path == "images/11507a0e2f5e69d5.png"
    assert other.path.endswith(".jpg")
    assert (tmp_path / first.path).read_bytes() == b"new"
    images.prune()
    assert {f"images/{file.name}" for file in (tmp_path / "images").iterdir()} == {first.path, other.path}
    assert earlier.path not in (first.path, other.path)


def test_the_digest_follows_the_contents_and_not_their_order(tmp_path):
    digests = []
    for number, contents in enumerate([(b"a", b"b"), (b"b", b"a"), (b"a", b"c")]):
        images = Images(tmp_path / str(number))
        for content in contents:
            images.add(content)
        digests.append(images.digest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif")])
def test_known_formats(kind, suffix):
    assert image_suffix(encoded(kind)) == suffix


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "unreadable"),
        (b"not an image", "unreadable"),
        (encoded("PNG", (64, 64))[:-30], "unreadable"),
        (encoded("JPEG", (64, 64))[:200], "unreadable"),
        (encoded("TIFF"), "its format is TIFF; expected one of PNG, JPEG"),
    ],
)
def test_what_is_no_sound_image_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        image_suffix(content)


def test_an_image_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(ValueError, match=r"unreadable .*decompression bomb"):
        image_suffix(encoded("PNG"))
