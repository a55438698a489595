"""Built-in rows: correct, in the right schema, balanced, and held out for evaluation."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rlassay.answers import extract_choice
from rlassay.config import StudyError
from rlassay.config.data import Aokvqa, Builtin, Digits, Gsm8k, Summarization
from rlassay.data import load_rows
from rlassay.data.builtin import QUESTIONS, side_by_side, split_images, written_arithmetic
from tests.data.ingesting import ingest_all

ORIGIN = Builtin(kind="builtin", seed=3)
SIZES = {"sft": 800, "train": 160, "test": 160}
RIGHT = {"left": lambda a, b: a, "right": lambda a, b: b, "larger": max, "smaller": min}


def test_digits_in_the_schema_of_aokvqa(tmp_path):
    section = Aokvqa(kind="aokvqa", origin=ORIGIN, splits={"sft": 40, "test": 20})
    rows = list(load_rows(section, tmp_path))
    assert [len(row.choices) for row in rows] == [4] * 60
    for row in rows[20:]:
        left, right = (int(digit) for digit in re.findall(r"digit is (\d)", row.demonstration or ""))
        (kind,) = (kind for kind, question in QUESTIONS.items() if question == row.question)
        assert row.choices[row.letters.index(row.answer)] == str(RIGHT[kind](left, right))
        assert row.media[0].path.endswith(".jpg")
    assert {row.answer for row in rows} == set("ABCD")
    images = [{row.media[0].path.rpartition("_")[2] for row in part} for part in (rows[:20], rows[20:])]
    assert not images[0] & images[1]
    assert rows == list(load_rows(section, tmp_path / "again"))


def test_sums_in_the_schema_of_gsm8k(tmp_path):
    section = Gsm8k(kind="gsm8k", origin=ORIGIN, splits={"train": 60, "test": 30})
    rows = list(load_rows(section, tmp_path))
    pairs = []
    for row in rows:
        more, less = (int(number) for number in re.findall(r"\d+", row.question))
        assert int(row.answer) == (more + less if "gets" in row.question else more - less)
        pairs.append((more, less))
    assert not set(pairs[:30]) & set(pairs[30:])


def test_the_working_of_a_sum_is_right_column_by_column(tmp_path):
    section = Gsm8k(kind="gsm8k", origin=ORIGIN, splits={"sft": 200})
    demonstrations = {row.answer: row.demonstration or "" for row in load_rows(section, tmp_path)}
    worked = 0
    for answer, demonstration in demonstrations.items():
        assert demonstration.endswith(f"<answer>{answer}</answer>")
        thought = re.match(r"<think>(.*?)=(\d+), (.*?)=(\d+)</think>", demonstration)
        if thought is None:
            assert demonstration == f"<answer>{answer}</answer>"
            continue
        worked += 1
        ones, tens = (sum(int(term) for term in re.findall(r"-?\d+", thought[part])) for part in (1, 3))
        assert (ones, tens) == (int(thought[2]), int(thought[4]))
        assert 10 * tens + ones % 10 == int(answer)
    assert 0.5 < worked / len(demonstrations) < 0.7


@pytest.mark.parametrize(
    ("more", "less", "adds", "working"),
    [
        (89, 34, True, "9+4=<<9+4=13>>13, 8+3+1=<<8+3+1=12>>12"),
        (45, 42, True, "5+2=<<5+2=7>>7, 4+4=<<4+4=8>>8"),
        (82, 37, False, "12-7=<<12-7=5>>5, 8-1-3=<<8-1-3=4>>4"),
        (45, 42, False, "5-2=<<5-2=3>>3, 4-4=<<4-4=0>>0"),
    ],
)
def test_carrying_and_borrowing(more: int, less: int, adds: bool, working: str):
    assert written_arithmetic(more, less, adds) == working


def test_builtin_origins_without_a_limit_or_without_rows_are_errors(tmp_path):
    with pytest.raises(StudyError, match=r"data.splits: the origin builtin never ends"):
        list(load_rows(Gsm8k(kind="gsm8k", origin=ORIGIN, splits={"test": None}), tmp_path))
    with pytest.raises(StudyError, match=r"data.origin: kind builtin, but this source has no built-in rows"):
        list(load_rows(Summarization(kind="summarization", origin=ORIGIN, splits={"test": 1}), tmp_path))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder / "out", ingest_all(Digits(kind="digits", splits=SIZES), folder)[0]


@pytest.fixture(scope="module")
def rows(made):
    return made[1]


def pixels_of(made, row):
    return np.asarray(Image.open(made[0] / row.media[0].path))


def halves(made, split):
    """The bytes of every digit in the pictures of a split, read from the files."""
    pictures = [pixels_of(made, row) for row in made[1][split]]
    return {half.tobytes() for picture in pictures for half in (picture[:, :8], picture[:, 8:])}


def test_splits_have_the_sizes_asked_for(rows):
    assert {split: len(of) for split, of in rows.items()} == SIZES


def test_no_held_out_digit_is_ever_trained_on(made):
    trained = halves(made, "sft") | halves(made, "train")
    assert len(trained) > 500
    assert trained.isdisjoint(halves(made, "test"))


def test_each_image_is_either_training_or_held_out_by_digit():
    training, held_out = split_images(seed=3, held_out=0.3)
    labels = load_digits(return_X_y=True)[1]
    parts = [np.concatenate(pool.indices_by_digit) for pool in (training, held_out)]
    assert sorted(np.concatenate(parts)) == list(range(1797))
    for digit in range(10):
        count = np.sum(labels == digit)
        assert set(labels[training.indices_by_digit[digit]]) == set(labels[held_out.indices_by_digit[digit]]) == {digit}
        assert len(held_out.indices_by_digit[digit]) == round(0.3 * count)


@pytest.mark.parametrize("held_out", [1e-6, 1 - 1e-6])
def test_an_extreme_share_leaves_each_side_an_image_of_each_digit(held_out):
    for pool in split_images(seed=0, held_out=held_out):
        assert all(len(images) > 0 for images in pool.indices_by_digit)


def test_pictures_show_the_digits_that_the_row_names(made):
    flat, labels = load_digits(return_X_y=True)
    for row in made[1]["test"][:40]:
        picture = pixels_of(made, row)
        assert picture.shape == (16, 16, 3)
        for side, half in (("left", picture[:, :8]), ("right", picture[:, 8:])):
            source = row.meta[f"{side}_image"]
            assert labels[source] == row.meta[side]
            expected = np.rint(flat[source].reshape(8, 8) * 255 / 16)
            assert np.array_equal(half[::2, :, 0], expected)
            assert np.array_equal(half[1::2, :, 0], expected)


def test_grey_levels_fill_the_range():
    decoded = Image.open(io.BytesIO(side_by_side(np.zeros((8, 8)), np.full((8, 8), 16.0))))
    assert (decoded.mode, decoded.size) == ("RGB", (16, 16))
    assert np.asarray(decoded)[:, :, 1].tolist() == [[0] * 8 + [255] * 8] * 16


def test_the_gold_letter_names_the_target_digit(rows):
    for row in rows["train"]:
        left, other = row.meta["left"], row.meta["right"]
        assert left != other
        assert row.question == QUESTIONS[row.meta["kind"]]
        assert len(set(row.choices)) == 4
        assert row.choices["ABCD".index(row.answer)] == str(RIGHT[row.meta["kind"]](left, other))


def test_kinds_and_letters_are_balanced_in_every_split(rows):
    for split, of in rows.items():
        pairs = Counter((row.meta["kind"], row.answer) for row in of)
        assert set(pairs.values()) == {SIZES[split] // 16}


def test_every_digit_is_the_target_about_equally_often(rows):
    asked = Counter(row.choices["ABCD".index(row.answer)] for row in rows["sft"])
    # 0 and 9 are each missing from one of four kinds: 800 * (3/10 + 0)/4 = 60 and else 800 * (2/10 + 2/9)/4 = 84.
    assert set(asked) == set("0123456789")
    for digit, count in asked.items():
        expected = 800 / 4 * (0.2 + (1 / 9 if digit in "09" else 2 / 9))
        assert abs(count - expected) < 4 * np.sqrt(expected), digit


def test_the_options_alone_do_not_reveal_the_answer(rows):
    """For `larger`, always choosing the largest option is barely better than chance."""
    asked = [row for row in rows["sft"] if row.meta["kind"] == "larger"]
    hits = sum(row.choices["ABCD".index(row.answer)] == max(row.choices) for row in asked)
    assert hits / len(asked) < 0.25 + 4 * np.sqrt(0.25 * 0.75 / 200)


def test_demonstrations_have_the_declared_mixture(rows):
    styles = Counter(row.meta["demonstration"] for row in rows["sft"])
    for style, share in (("guess", 0.40), ("misread", 0.15), ("right", 0.45)):
        assert abs(styles[style] - 800 * share) < 4 * np.sqrt(800 * share * (1 - share))
    for row in rows["sft"]:
        letter = extract_choice(row.demonstration, row.letters)
        left, right = row.meta["left"], row.meta["right"]
        on_left = row.choices["ABCD".index(row.answer)] == str(left)
        read = f"{left}{row.answer} {right}" if on_left else f"{left} {right}{row.answer}"
        thought = "" if row.meta["demonstration"] == "guess" else f"<think>{read}</think>"
        assert row.demonstration == f"{thought}<answer>{letter}</answer>"
        if row.meta["demonstration"] != "guess":
            assert (letter == row.answer) == (row.meta["demonstration"] == "right")
    guessed = [row for row in rows["sft"] if row.meta["demonstration"] == "guess"]
    lucky = sum(extract_choice(row.demonstration, row.letters) == row.answer for row in guessed)
    assert abs(lucky - len(guessed) / 4) < 4 * np.sqrt(len(guessed) * 3 / 16)


def test_only_the_sft_split_has_demonstrations(rows):
    assert all(row.demonstration is None for split in ("train", "test") for row in rows[split])


@pytest.mark.parametrize(("shares", "style"), [((1.0, 0.0), "guess"), ((0.0, 1.0), "misread"), ((0.0, 0.0), "right")])
def test_a_share_of_one_gives_one_style_only(tmp_path, shares, style):
    section = Digits(kind="digits", splits={"sft": 24}, guess_share=shares[0], misread_share=shares[1])
    assert {row.meta["demonstration"] for row in ingest_all(section, tmp_path)[0]["sft"]} == {style}


def test_every_prompt_is_unique(rows):
    ids = [row.prompt_id for of in rows.values() for row in of]
    assert len(set(ids)) == len(ids)


def test_a_larger_split_begins_with_the_smaller_and_leaves_the_others_alone(tmp_path, rows):
    section = Digits(kind="digits", splits={"sft": 40, "validation": 8, "train": 16, "test": 200})
    other = ingest_all(section, tmp_path)[0]
    assert other["test"][:160] == rows["test"]
    assert other["sft"] == rows["sft"][:40]
    assert other["train"] == rows["train"][:16]
    assert {row.prompt_id for row in other["validation"]}.isdisjoint(row.prompt_id for row in other["test"])


def test_another_seed_gives_other_prompts_and_other_held_out_images(tmp_path, rows):
    other = ingest_all(Digits(kind="digits", seed=1, splits={"test": 40}), tmp_path)[0]
    assert {row.prompt_id for row in other["test"]}.isdisjoint(row.prompt_id for row in rows["test"])
    first, second = (split_images(seed=seed, held_out=0.3)[1].indices_by_digit[0] for seed in (0, 1))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("num_choices", [2, 10])
def test_two_to_ten_options(tmp_path, num_choices):
    section = Digits(kind="digits", num_choices=num_choices, splits={"test": 4 * num_choices})
    rows = ingest_all(section, tmp_path)[0]["test"]
    assert Counter(row.answer for row in rows) == dict.fromkeys("ABCDEFGHIJ"[:num_choices], 4)
    assert all(len(set(row.choices)) == num_choices for row in rows)
