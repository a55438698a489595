"""Near-duplicates and leaks, through the whole of a source."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rlassay.config.data import Columns, Files, Table
from rlassay.data.drafts import UnsuitableError
from rlassay.data.duplicates import FLAT, NEAR, SMALLEST, Digests, Seen, Shown, digest_of, plain
from tests.data import taking

# MERGED FROM test_duplicates.py: Near-duplicates and leaks, through the whole of a source.


def noise(seed, kind="PNG", size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def row(question, image):
    return {"question": question, "answer": "yes", "image": image}


def take(tmp_path, **splits):
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    origin = Files(kind="parquet", folder=str(tmp_path))
    section = Table(kind="table", origin=origin, columns=Columns(images="image"), splits=dict.fromkeys(splits))
    return taking.take(section, tmp_path)


def test_within_a_split_the_same_words_and_the_same_picture_are_one_prompt(tmp_path):
    rows = [
        row("Is it red?", noise(0)),
        row("is it RED", noise(0, "JPEG")),  # other words for a machine, other bytes: the same prompt
        row("Is it red?", noise(1)),
        row("Is it blue?", noise(0)),
    ]
    kept, refused = take(tmp_path, test=rows)
    assert [item.question for item in kept["test"]] == ["Is it red?", "Is it red?", "Is it blue?"]
    assert refused["test"] == ["duplicate: nearly the same prompt stands in the split 'test'"]


def test_training_rows_that_show_an_evaluation_image_are_refused(tmp_path):
    train = [row("Is it red?", noise(0)), row("Is it new?", noise(0, "JPEG", (96, 72))), row("Is it red?", noise(2))]
    kept, refused = take(tmp_path, train=train, test=[row("Is it red?", noise(0)), row("And it?", noise(1))])
    assert list(kept) == ["test", "train"]
    assert (len(kept["test"]), len(kept["train"])) == (2, 1)
    assert refused["train"] == [
        "leak: nearly the same prompt stands in the split 'test'",
        "leak: nearly the same image stands in the split 'test'",
    ]


def test_text_rows_leak_by_their_words_and_flat_images_by_their_bytes(tmp_path):
    flat = [io.BytesIO(), io.BytesIO()]
    Image.new("RGB", (9, 9), "red").save(flat[0], "PNG")
    Image.new("RGB", (9, 9), "blue").save(flat[1], "PNG")
    red, blue = (one.getvalue() for one in flat)
    kept, refused = take(
        tmp_path,
        test=[row("What is 3 + 4?", None), row("Which colour?", red)],
        train=[row("what is 3 + 4", None), row("What is 3 - 4?", None), row("Which colour?", blue), row("Tell", red)],
    )
    assert [item.question for item in kept["train"]] == ["What is 3 - 4?", "Which colour?"]
    assert [reason.split(":")[0] for reason in refused["train"]] == ["leak", "leak"]


def test_what_counts_as_the_same_words():
    assert plain("What  IS 3 + 4?") == plain("what is 3+4") != plain("what is 3 - 4")
    assert plain("Ｗhat, is it") == plain("what is it!")


def test_prompts_with_several_images_are_the_same_only_in_all_of_them():
    """Each pair of hashes differs in one bit, 1 of 256; `OTHER` in all."""
    seen = Seen(split="train")
    seen.add(Shown(text=1, exact=("a", "b"), hashes=(ONE, TWO)))
    seen.add(Shown(text=1, exact=("c", "d"), hashes=(OTHER, OTHER)))
    near = (nearby(ONE), nearby(TWO))
    assert refused(seen, Shown(text=1, exact=("e", "f"), hashes=near))
    for others in ((near[0], OTHER), near[::-1], near[:1], (*near, near[1])):
        assert not refused(seen, Shown(text=1, exact=("e",) * len(others), hashes=others))
    assert not refused(seen, Shown(text=2, exact=("e", "f"), hashes=near))


def test_clips_are_compared_by_their_paths_beside_the_images():
    seen = Seen(split="train")
    seen.add(Shown(text=1, exact=("a", "clip.mp4"), hashes=(ONE,)))
    assert refused(seen, Shown(text=1, exact=("b", "clip.mp4"), hashes=(nearby(ONE),)))
    assert not refused(seen, Shown(text=1, exact=("b", "other.mp4"), hashes=(nearby(ONE),)))
    with pytest.raises(UnsuitableError, match="leak"):
        seen.refuse_shared_image(Shown(text=2, exact=("clip.mp4",)))


def test_the_limits_of_near_and_flat():
    seen = Seen(split="test")
    seen.add(Shown(text=1, exact=("a",), hashes=(ONE,)))
    for bits, leaks in ((NEAR, True), (NEAR + 1, False)):
        shown = Shown(text=2, exact=("b",), hashes=(nearby(ONE, bits),))
        assert refused(seen, shown, Seen.refuse_shared_image) == leaks
    seen.add(Shown(text=3, exact=("c",), hashes=(flat(FLAT - 1),)))  # too flat to be recognised by its looks
    assert not refused(seen, Shown(text=3, exact=("d",), hashes=(flat(FLAT),)))
    assert not refused(seen, Shown(text=3, exact=("d",), hashes=(flat(FLAT),)), Seen.refuse_shared_image)
    assert refused(seen, Shown(text=3, exact=("c",), hashes=(flat(FLAT - 1),)))


def test_drawn_pictures_are_the_same_only_exactly():
    seen = Seen(split="test", exactly=True)
    seen.add(Shown(text=1, exact=("a",), hashes=(ONE,)))
    looks = Shown(text=1, exact=("b",), hashes=(ONE,))
    assert not refused(seen, looks)
    assert not refused(seen, looks, Seen.refuse_shared_image)
    assert refused(seen, Shown(text=1, exact=("a",), hashes=(ONE,)))


ONE, TWO, OTHER = (f"{int(pair * 32, 16):064x}" for pair in ("a5", "3c", "5a"))


def nearby(one, bits=1):
    """The hash with its lowest bits flipped."""
    return f"{int(one, 16) ^ (2**bits - 1):064x}"


def flat(bits):
    return f"{2**bits - 1:064x}"


def refused(seen, shown, check=Seen.refuse_duplicate):
    try:
        check(seen, shown)
    except UnsuitableError:
        return True
    return False


# MERGED FROM test_digests.py:

DIGESTS = st.integers(1, 2**64 - 1) | st.integers(1, 40).map(lambda n: n * SMALLEST)  # the latter want one place


@given(st.lists(DIGESTS, max_size=60), DIGESTS)
def test_it_holds_what_a_set_holds(added, asked):
    digests, expected = Digests(), set()
    for digest in added:
        assert digests.add(digest) == (digest not in expected)
        expected.add(digest)
    assert len(digests) == len(expected)
    assert (asked in digests) == (asked in expected)


def test_it_grows_and_forgets_nothing():
    digests, many = Digests(), [digest_of(str(number)) for number in range(5 * SMALLEST)]
    assert all(digests.add(digest) for digest in many)
    assert all(digest in digests for digest in many)
    assert digest_of("absent") not in digests
    assert len(digests) == len(many)


def test_a_million_take_no_more_than_32_bytes_each():
    digests = Digests()
    for number in range(1, 20_001):
        digests.add(number)
    assert digests._places.buffer_info()[1] * 8 <= 32 * len(digests) + 8 * SMALLEST


def test_parts_are_told_apart():
    assert digest_of("a", "b") != digest_of("ab") != digest_of("a\0b!")
    # the first 8 bytes of sha256("abc"), the first test vector of FIPS 180
    assert digest_of("abc") == 0xBA7816BF8F01CFEA
