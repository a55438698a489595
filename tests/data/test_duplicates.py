"""Near-duplicates and leaks of whole sources and of signatures, and the set of digests that finds them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rlassay.config.data import Columns, Files, Table
from rlassay.data.duplicates import (
    FLAT_BITS,
    INITIAL_SLOTS,
    NEAR_BITS,
    DigestSet,
    PromptSignature,
    SplitIndex,
    digest_of,
    normalized_text,
)
from rlassay.data.raw_examples import UnsuitableRowError
from tests.data.ingesting import ingest_all


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
    return ingest_all(section, tmp_path)


def test_in_a_split_the_same_words_and_the_same_picture_are_one_prompt(tmp_path):
    rows = [
        row("Is it red?", noise(0)),
        row("is it RED", noise(0, "JPEG")),  # other case and bytes, but the same prompt
        row("Is it red?", noise(1)),
        row("Is it blue?", noise(0)),
    ]
    accepted, rejected = take(tmp_path, test=rows)
    assert [item.question for item in accepted["test"]] == ["Is it red?", "Is it red?", "Is it blue?"]
    assert rejected["test"] == ["duplicate: nearly the same prompt stands in the split 'test'"]


def test_training_rows_with_an_evaluation_image_are_rejected(tmp_path):
    train = [row("Is it red?", noise(0)), row("Is it new?", noise(0, "JPEG", (96, 72))), row("Is it red?", noise(2))]
    accepted, rejected = take(tmp_path, train=train, test=[row("Is it red?", noise(0)), row("And it?", noise(1))])
    assert list(accepted) == ["test", "train"]
    assert (len(accepted["test"]), len(accepted["train"])) == (2, 1)
    assert rejected["train"] == [
        "leak: nearly the same prompt stands in the split 'test'",
        "leak: nearly the same image stands in the split 'test'",
    ]


def test_text_rows_leak_by_their_words_and_flat_images_by_their_bytes(tmp_path):
    flat = [io.BytesIO(), io.BytesIO()]
    Image.new("RGB", (9, 9), "red").save(flat[0], "PNG")
    Image.new("RGB", (9, 9), "blue").save(flat[1], "PNG")
    red, blue = (one.getvalue() for one in flat)
    accepted, rejected = take(
        tmp_path,
        test=[row("What is 3 + 4?", None), row("Which colour?", red)],
        train=[row("what is 3 + 4", None), row("What is 3 - 4?", None), row("Which colour?", blue), row("Tell", red)],
    )
    assert [item.question for item in accepted["train"]] == ["What is 3 - 4?", "Which colour?"]
    assert [reason.split(":")[0] for reason in rejected["train"]] == ["leak", "leak"]


def test_words_are_compared_without_case_spacing_and_punctuation():
    assert normalized_text("What  IS 3 + 4?") == normalized_text("what is 3+4") != normalized_text("what is 3 - 4")
    assert normalized_text("Ｗhat, is it") == normalized_text("what is it!")


def test_prompts_with_several_images_are_duplicates_only_if_all_match():
    """`nearby` flips one bit of 256; `OTHER` differs from `ONE` in all."""
    index = SplitIndex(split="train")
    index.add(PromptSignature(text=1, exact=("a", "b"), hashes=(ONE, TWO)))
    index.add(PromptSignature(text=1, exact=("c", "d"), hashes=(OTHER, OTHER)))
    near = (nearby(ONE), nearby(TWO))
    assert is_rejected(index, PromptSignature(text=1, exact=("e", "f"), hashes=near))
    for others in ((near[0], OTHER), near[::-1], near[:1], (*near, near[1])):
        assert not is_rejected(index, PromptSignature(text=1, exact=("e",) * len(others), hashes=others))
    assert not is_rejected(index, PromptSignature(text=2, exact=("e", "f"), hashes=near))


def test_clips_are_compared_by_their_paths_beside_the_images():
    index = SplitIndex(split="train")
    index.add(PromptSignature(text=1, exact=("a", "clip.mp4"), hashes=(ONE,)))
    assert is_rejected(index, PromptSignature(text=1, exact=("b", "clip.mp4"), hashes=(nearby(ONE),)))
    assert not is_rejected(index, PromptSignature(text=1, exact=("b", "other.mp4"), hashes=(nearby(ONE),)))
    with pytest.raises(UnsuitableRowError, match="leak"):
        index.reject_shared_image(PromptSignature(text=2, exact=("clip.mp4",)))


def test_the_limits_of_near_and_flat():
    index = SplitIndex(split="test")
    index.add(PromptSignature(text=1, exact=("a",), hashes=(ONE,)))
    for bits, leaks in ((NEAR_BITS, True), (NEAR_BITS + 1, False)):
        signature = PromptSignature(text=2, exact=("b",), hashes=(nearby(ONE, bits),))
        assert is_rejected(index, signature, SplitIndex.reject_shared_image) == leaks
    index.add(PromptSignature(text=3, exact=("c",), hashes=(flat(FLAT_BITS - 1),)))  # too flat for a comparison by look
    assert not is_rejected(index, PromptSignature(text=3, exact=("d",), hashes=(flat(FLAT_BITS),)))
    assert not is_rejected(
        index, PromptSignature(text=3, exact=("d",), hashes=(flat(FLAT_BITS),)), SplitIndex.reject_shared_image
    )
    assert is_rejected(index, PromptSignature(text=3, exact=("c",), hashes=(flat(FLAT_BITS - 1),)))


def test_drawn_pictures_must_match_exactly():
    index = SplitIndex(split="test", exact_images_only=True)
    index.add(PromptSignature(text=1, exact=("a",), hashes=(ONE,)))
    looks = PromptSignature(text=1, exact=("b",), hashes=(ONE,))
    assert not is_rejected(index, looks)
    assert not is_rejected(index, looks, SplitIndex.reject_shared_image)
    assert is_rejected(index, PromptSignature(text=1, exact=("a",), hashes=(ONE,)))


ONE, TWO, OTHER = (f"{int(pair * 32, 16):064x}" for pair in ("a5", "3c", "5a"))


def nearby(one, bits=1):
    """The hash with its lowest bits flipped."""
    return f"{int(one, 16) ^ (2**bits - 1):064x}"


def flat(bits):
    return f"{2**bits - 1:064x}"


def is_rejected(index, signature, check=SplitIndex.reject_duplicate):
    try:
        check(index, signature)
    except UnsuitableRowError:
        return True
    return False


DIGESTS = st.integers(1, 2**64 - 1) | st.integers(1, 40).map(
    lambda n: n * INITIAL_SLOTS
)  # the latter start at one slot


@given(st.lists(DIGESTS, max_size=60), DIGESTS)
def test_a_digest_set_equals_a_set(added, asked):
    digests, expected = DigestSet(), set()
    for digest in added:
        assert digests.add(digest) == (digest not in expected)
        expected.add(digest)
    assert len(digests) == len(expected)
    assert (asked in digests) == (asked in expected)


def test_a_digest_set_grows_and_loses_nothing():
    digests, many = DigestSet(), [digest_of(str(number)) for number in range(5 * INITIAL_SLOTS)]
    assert all(digests.add(digest) for digest in many)
    assert all(digest in digests for digest in many)
    assert digest_of("absent") not in digests
    assert len(digests) == len(many)


def test_a_digest_takes_at_most_32_bytes():
    digests = DigestSet()
    for number in range(1, 20_001):
        digests.add(number)
    assert digests._slots.buffer_info()[1] * 8 <= 32 * len(digests) + 8 * INITIAL_SLOTS


def test_the_boundaries_of_parts_change_the_digest():
    assert digest_of("a", "b") != digest_of("ab") != digest_of("a\0b!")
    # the first 8 bytes of sha256("abc"), the first test vector of FIPS 180
    assert digest_of("abc") == 0xBA7816BF8F01CFEA
