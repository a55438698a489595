"""Near-duplicates and leaks of whole sources and of signatures, and the set of digests that finds them."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from rlassay.config.data import Columns, Files, Table
from rlassay.data.duplicates import (
    FLAT_BITS,
    INITIAL_SLOTS,
    NEAR_BITS,
    DigestMap,
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
    assert rejected["test"] == ["duplicate: nearly the same prompt is in the split 'test'"]


def test_training_rows_with_an_evaluation_image_are_rejected(tmp_path):
    """An image that only looks like one of evaluation leaks if question and answer are the same too."""
    train = [
        row("Is it red?", noise(0, "JPEG", (96, 72))),
        row("Is it new?", noise(0)),
        row("Is it new?", noise(0, "JPEG", (96, 72))),
        row("Is it red?", noise(0, "JPEG", (96, 72))) | {"answer": "no"},
        row("Is it red?", noise(2)),
    ]
    accepted, rejected = take(tmp_path, train=train, test=[row("Is it red?", noise(0)), row("And it?", noise(1))])
    assert list(accepted) == ["test", "train"]
    assert (len(accepted["test"]), len(accepted["train"])) == (2, 3)
    assert rejected["train"] == [
        "leak: nearly the same prompt is in the split 'test'",
        "leak: the same image or clip is in the split 'test'",
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
    for bits, repeats in ((NEAR_BITS, True), (NEAR_BITS + 1, False)):
        signature = PromptSignature(text=1, exact=("b",), hashes=(nearby(ONE, bits),))
        assert is_rejected(index, signature) == repeats
        assert not is_rejected(index, replace(signature, answer=2))
        assert not is_rejected(index, replace(signature, text=2), SplitIndex.reject_shared_image)
    index.add(PromptSignature(text=3, exact=("c",), hashes=(flat(FLAT_BITS - 1),)))  # too flat for a comparison by look
    assert not is_rejected(index, PromptSignature(text=3, exact=("d",), hashes=(flat(FLAT_BITS),)))
    assert not is_rejected(
        index, PromptSignature(text=3, exact=("d",), hashes=(flat(FLAT_BITS),)), SplitIndex.reject_shared_image
    )
    assert is_rejected(index, PromptSignature(text=3, exact=("c",), hashes=(flat(FLAT_BITS - 1),)))


def test_the_exact_rule_compares_texts_and_images_as_they_are():
    def exact(index, signature):
        index.reject_duplicate(signature, "exact")

    index = SplitIndex(split="test")
    index.add(PromptSignature(text=1, plain=5, exact=("a",), hashes=(ONE,)))
    looks = PromptSignature(text=1, plain=5, exact=("b",), hashes=(ONE,))
    assert not is_rejected(index, looks, exact)
    assert not is_rejected(index, looks, SplitIndex.reject_shared_image)
    assert not is_rejected(index, PromptSignature(text=1, plain=6, exact=("a",), hashes=(ONE,)), exact)
    assert is_rejected(index, PromptSignature(text=1, plain=5, exact=("a",), hashes=(ONE,)), exact)


DIFFERENT = [
    ("5² + 1", "52 + 1"),
    ("x₁ + 2", "x1 + 2"),
    ("What is 5!?", "What is 5?"),
    ("n!", "n"),
    ("f'(2)", "f(2)"),
    ("f''(2)", "f'(2)"),
    ("(2+3)*4", "2+3*4"),
    ("2*(3+4)", "(2*3)+4"),
    ("1.5 + 2", "15 + 2"),
    ("1.5", "1 5"),
    (".5", "5"),
    ("1,5", "15"),
    ("3:4", "34"),
    ("3:4", "3 4"),
    ("-3 + 4", "3 + 4"),
    ("[5 -3]", "[5 - 3]"),
    ("x + X", "x + x"),
    ("AB", "ab"),
    ("Is AB = 2?", "Is ab = 2?"),
    ("Find ABC", "Find abc"),
    ("5 mW", "5 MW"),
    ("|x|", "x"),
    ("⌊x⌋", "x"),
    ("3 = x", "3 ≠ x"),
    ("a < b", "a > b"),
    ("x^2", "x2"),
    ("x^{10}", "x^10"),
    ("½", "1/2"),
    ("√2", "2"),
    ("5%", "5"),
    ("$5", "5"),
    ('6" wide', "6 wide"),
    ("sin x", "sinh x"),
    ("12", "1 2"),
    ("f(1, 2)", "f(1 2)"),
    ("x'", "x"),
    ("2 + 3", "2 - 3"),
    ("2 × 3", "2 ÷ 3"),
    ("A ∪ B", "A ∩ B"),
    ("~p", "p"),
    ("f(g(x))", "f(g)(x)"),
    ("3!!", "3!"),
    ("5! + 2", "5 + 2"),
    ("(n)!", "(n)"),
    ("x̄", "x"),
    ("α + 1", "Α + 1"),
    ("1e5", "1E 5"),
    ("x_1", "x1"),
    ("a, b", "ab"),
    ("x . y", "x y"),
    ("2 + ? = 5", "2 + = 5"),
    ("3 ? 4", "3 4"),
]
EQUAL = [
    ("What  IS 3 + 4?", "what is 3+4"),
    ("Ｗhat, is it", "what is it!"),
    ("Find x.", "find x"),
    ("Who wrote it?", "who wrote it"),
    ("Is it RED", "is it red?"),
    ("The cat, the dog.", "the cat the dog"),
    ("What is 5?", "what is 5."),
    ("It\u2019s red", "It's red"),
    ('Say "yes".', "say yes"),
    ("Solve: 3 − 4", "solve 3 - 4"),
    ("What is\nit", "What is it"),
    ("ONE", "One?"),
    ("３ + ４", "3 + 4"),
    ("Solve for x. Then stop.", "solve for x then stop"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_mathematics_stays_different(one, other):
    assert normalized_text(one) != normalized_text(other)
    assert normalized_text(f"What is {one}?") != normalized_text(f"What is {other}?")


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_the_same_sentence_is_the_same(one, other):
    assert normalized_text(one) == normalized_text(other)


@pytest.mark.parametrize(
    ("rule", "train", "test"),
    [("near", ["c"], ["a", "c"]), ("exact", ["c"], ["a", "b", "c"]), ("off", ["a", "b", "c"], ["a", "a", "b", "c"])],
)
def test_the_rules_for_duplicates_and_leaks(tmp_path, rule, train, test):
    """By answers: `a` is in both splits, twice in `test`; `b` is the same in capitals; `c` of `train` is new."""
    rows = {"a": "Is it red?", "b": "is it RED", "c": "Is it blue?"}
    (tmp_path / "in").mkdir()
    for split, names in (("test", "aabc"), ("train", "abc")):
        lines = [
            {"question": rows[name] + (" now" if split + name == "trainc" else ""), "answer": name} for name in names
        ]
        (tmp_path / "in" / f"{split}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    origin = Files(kind="json", folder=str(tmp_path / "in"))
    section = Table(kind="table", origin=origin, duplicates=rule, leaks=rule)
    accepted, _ = ingest_all(section, tmp_path)
    assert [item.answer for item in accepted["test"]] == test
    assert [item.answer for item in accepted["train"]] == train
    keys = [item.prompt_id for item in accepted["test"]]
    assert len(set(keys)) == len(keys)


def test_drawn_charts_that_look_alike_are_kept(tmp_path):
    """Shapes that differ in colour alone look the same to the perceptual hash."""

    def shape(colour):
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse((10, 10, 50, 40), fill=colour)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    train = [row("Which colour?", shape((200, 0, n))) | {"answer": f"c{n}"} for n in range(20)]
    test = [row("Which colour?", shape((0, 90, n))) | {"answer": f"d{n}"} for n in range(5)]
    accepted, rejected = take(tmp_path, train=train, test=test)
    assert (len(accepted["train"]), len(accepted["test"])) == (20, 5)
    assert rejected == {"test": [], "train": []}


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


def test_a_digest_map_keeps_the_first_number_of_each_digest_as_it_grows():
    numbers = DigestMap()
    for number in range(3 * INITIAL_SLOTS):
        numbers.put(digest_of(str(number)), number)
        numbers.put(digest_of(str(number)), 7)
    assert [numbers.get(digest_of(str(number))) for number in range(3 * INITIAL_SLOTS)] == list(
        range(3 * INITIAL_SLOTS)
    )
    assert numbers.get(digest_of("absent")) is None


def test_a_digest_takes_at_most_32_bytes():
    digests = DigestSet()
    for number in range(1, 20_001):
        digests.add(number)
    assert digests._slots.buffer_info()[1] * 8 <= 32 * len(digests) + 8 * INITIAL_SLOTS


def test_the_boundaries_of_parts_change_the_digest():
    assert digest_of("a", "b") != digest_of("ab") != digest_of("a\0b!")
    # the first 8 bytes of sha256("abc"), the first test vector of FIPS 180
    assert digest_of("abc") == 0xBA7816BF8F01CFEA
