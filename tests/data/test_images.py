"""Images: stored once per content, converted by the policy, rejected with a reason, compared by look."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from rlassay.config.data import ImagePolicy
from rlassay.data.images import ImageStore, encode_image, perceptual_hash, read_image
from rlassay.data.raw_examples import RowRejectedError


def test_equal_contents_share_a_file_and_leftovers_are_removed(tmp_path):
    earlier = ImageStore(tmp_path).add(b"old")
    images = ImageStore(tmp_path)
    first, again, other = images.add(b"new"), images.add(b"new"), images.add(b"newer", "jpg")
    assert first == again
    # sha256(b"new") = 11507a0e2f5e69d5... (sha256sum)
    assert first.path == "images/11507a0e2f5e69d5.png"
    assert other.path.endswith(".jpg")
    assert (tmp_path / first.path).read_bytes() == b"new"
    images.prune()
    assert {f"images/{file.name}" for file in (tmp_path / "images").iterdir()} == {first.path, other.path}
    assert earlier.path not in (first.path, other.path)


def test_the_digest_depends_on_the_contents_but_not_on_repeats(tmp_path):
    digests = []
    for number, contents in enumerate([(b"a", b"b"), (b"a", b"b", b"a"), (b"a", b"c")]):
        images = ImageStore(tmp_path / str(number))
        for content in contents:
            images.add(content)
        digests.append(images.digest())
    assert digests[0] == digests[1] != digests[2]


def test_an_image_of_an_earlier_attempt_is_restored_only_if_unchanged(tmp_path):
    first = ImageStore(tmp_path)
    path, torn = first.add(b"whole").path, first.add(b"torn").path
    (tmp_path / torn).write_bytes(b"tor")
    whole_sha, torn_sha = (hashlib.sha256(content).hexdigest() for content in (b"whole", b"torn"))
    later = ImageStore(tmp_path)
    assert later.restore(path, whole_sha)
    assert not later.restore(torn, torn_sha)
    assert not later.restore("images/gone.png", torn_sha)
    later.add(b"torn")
    assert (tmp_path / torn).read_bytes() == b"torn"
    assert later.digest() == first.digest()


def noise(seed, size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_form_gives_the_same_pixels(tmp_path):
    image = noise(0)
    (tmp_path / "a.png").write_bytes(encoded(image))
    content = encoded(image)
    for form in (content, image, "a.png", {"bytes": content, "path": "gone.png"}, {"image": {"path": "a.png"}}):
        assert read_image(form, tmp_path)[0].tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (None, "it is missing"),
        ({}, "it is missing"),
        (7, "neither a path nor bytes"),
        (b"text", "unreadable"),
        (encoded(noise(0))[:200], "unreadable"),
        ("gone.png", "no such file"),
        ("../outside.png", "leaves the data root"),
        ("/etc/hostname", "leaves the data root"),
        ("link.png", "leaves the data root"),
        ("a\0.png", "not a possible path"),
    ],
)
def test_an_unreadable_image_is_rejected(tmp_path, form, reason):
    (tmp_path / "outside.png").write_bytes(encoded(noise(0)))
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(RowRejectedError, match=f"^image: .*{reason}"):
        read_image(form, root)
    with pytest.raises(RowRejectedError, match="the source has no data root"):
        read_image("a.png", None)


def test_images_that_comply_keep_their_bytes_and_others_become_rgb(tmp_path):
    policy, image = ImagePolicy(), noise(0)
    for content, suffix in ((encoded(image), "png"), (encoded(image, "JPEG"), "jpg")):
        unchanged = encode_image(content, None, policy, jpeg=False)
        assert (unchanged.content, unchanged.suffix) == (content, suffix)
    as_jpeg = encode_image(encoded(image), None, policy, jpeg=True)
    assert (Image.open(io.BytesIO(as_jpeg.content)).format, as_jpeg.suffix) == ("JPEG", "jpg")

    palette = image.convert("P")
    # without a policy, bytes are kept unchanged
    assert encode_image(encoded(palette, "GIF"), None, None, jpeg=False).suffix == "gif"
    assert encode_image(encoded(palette, "GIF"), None, policy, jpeg=False).suffix == "png"
    with pytest.raises(RowRejectedError, match="its format is none of PNG, JPEG"):
        encode_image(encoded(image, "TIFF"), None, None, jpeg=False)

    clear = Image.new("RGBA", (4, 2), (255, 0, 0, 0))  # transparent red on white is white
    assert encode_image(clear, None, policy, jpeg=False).image.getpixel((0, 0)) == (255, 255, 255)
    assert encode_image(Image.new("L", (4, 2), 9), None, policy, jpeg=False).image.getpixel((0, 0)) == (9, 9, 9)
    turned = Image.Exif()
    turned[0x0112] = 6  # taken with an upright camera: 40 x 30 is displayed as 30 x 40
    assert encode_image(encoded(image, "JPEG", exif=turned), None, policy, jpeg=False).image.size == (30, 40)


@pytest.mark.parametrize(
    ("size", "policy", "expected"),
    [
        ((40, 30), {"max_side": 40}, (40, 30)),
        ((40, 30), {"max_side": 20, "too_large": "resize"}, (20, 15)),
        ((40, 30), {"max_pixels": 300}, (20, 15)),  # 1200 pixels x 1/4: half of each side
        ((40, 30), {"min_pixels": 4800}, (80, 60)),
        ((40, 30), {"min_pixels": 4800, "max_side": 60}, (60, 45)),
    ],
)
def test_images_are_resized_to_the_limits(size, policy, expected):
    assert encode_image(noise(0, size), None, ImagePolicy(**policy), jpeg=False).image.size == expected


@pytest.mark.parametrize("size", [(41, 30), (30, 41)])
def test_an_image_above_the_limit_is_dropped(size):
    with pytest.raises(RowRejectedError, match="image: a side above 40 pixels"):
        encode_image(noise(0, size), None, ImagePolicy(max_side=40), jpeg=False)


@pytest.mark.parametrize(
    ("content", "policy", "reason"),
    [
        (encoded(noise(0))[:200], ImagePolicy(), "image: unreadable"),
        (encoded(noise(0)), ImagePolicy(max_side=4), "image: a side above 4 pixels"),
        (encoded(noise(0), "TIFF"), None, "image: its format is none of"),
    ],
)
def test_a_rejected_image_is_named_with_its_file(content, policy, reason, tmp_path):
    (tmp_path / "cut.png").write_bytes(content)
    for form in ("cut.png", {"path": "cut.png", "bytes": None}):
        with pytest.raises(RowRejectedError, match=reason) as caught:
            encode_image(form, tmp_path, policy, jpeg=False)
        assert caught.value.detail == str(tmp_path / "cut.png")
    with pytest.raises(RowRejectedError, match="image: neither a path nor bytes") as caught:
        encode_image("", tmp_path, policy, jpeg=False)
    assert caught.value.detail == ""


def test_a_perceptual_hash_survives_compression_and_size_but_not_another_picture():
    image = noise(0, (400, 300))
    own = perceptual_hash(image)
    again = Image.open(io.BytesIO(encoded(image.resize((200, 150)), "JPEG", quality=60)))
    assert differing(own, perceptual_hash(again)) <= 8
    assert differing(own, perceptual_hash(noise(1, (400, 300)))) > 60
    assert perceptual_hash(Image.new("RGB", (9, 9), "red")) == 64 * "0"


def differing(one, other):
    """In how many bits two hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
