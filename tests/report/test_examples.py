"""Completions side by side: which prompts, and which completion of each row."""

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.records import CompletionRow, read_rows, write_rows
from rlassay.report.examples import IN_ORDER, LARGEST, build_examples, thumbnail
from rlassay.report.gather import Results, ResultsError, gather
from rlassay.report.tables import primary_column, scores_of
from tests.report.conftest import SETTINGS

# MERGED FROM test_examples.py: Completions side by side: which prompts, and which completion of each row.


def test_the_first_is_where_the_arms_differ_most(results: Results):
    prompt_ids = sorted(results.prompts["test"])
    arms = [row for row in results.rows.values() if row.kind == "arm"]
    means = [scores_of(results, row, primary_column(results)).mean(axis=0) for row in arms]
    spread = [max(column) - min(column) for column in zip(*means, strict=True)]
    first = build_examples(results, 3)[0]
    widest = [prompt_id for prompt_id, one in zip(prompt_ids, spread, strict=True) if one >= max(spread) - 1e-9]
    assert first.prompt_id == widest[0]
    assert first.reason.startswith("The arms differ most here")


def test_reasons_take_turns_and_no_prompt_comes_twice(results: Results):
    examples = build_examples(results, 6)
    openings = [example.reason.split(" here")[0] for example in examples]
    assert openings[:3] == [
        "The arms differ most",
        "RL changed most",
        "The strict and the lenient parser disagree most",
    ]
    assert openings[:2] == openings[3:5]
    assert len({example.prompt_id for example in examples}) == 6


def test_every_row_shows_sample_zero_of_its_first_seed(results: Results):
    example = build_examples(results, 1)[0]
    assert [shown.row for shown in example.completions] == list(results.rows)
    shown = example.completions[2]
    assert (shown.row, shown.seed) == ("base", 1)
    path = results.layout.completions("runs/base/seed1", "test")
    expected = next(
        one
        for one in read_rows(path, CompletionRow)
        if (one.prompt_id, one.mode, one.sample) == (example.prompt_id, "sampled", 0)
    )
    assert (shown.text, shown.token_count, shown.finished) == (expected.text, expected.token_count, expected.finished)
    assert shown.score == float(f"<answer>{example.answer}</answer>" in expected.text)
    assert example.images == ("../data/images/pair.png",)
    assert (results.layout.report / example.images[0]).resolve().is_file()


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (100, 24)])
def test_as_many_as_asked_for_and_as_there_are(results: Results, count: int, shown: int):
    examples = build_examples(results, count)
    assert len(examples) == shown
    assert len({example.prompt_id for example in examples}) == shown


def test_prompts_that_nothing_sets_apart_come_in_order(results: Results):
    alike = results.scores["runs/base/seed1", "test"]
    columns = [column for column in alike.means.columns if column[1] != "grading_disagreement"]
    same = type(alike)(means=alike.means[columns], counts=alike.counts[columns], binary=alike.binary)
    flat = Results(**(vars(results) | {"scores": dict.fromkeys(results.scores, same)}))
    examples = build_examples(flat, 2)
    assert [example.reason for example in examples] == [IN_ORDER, IN_ORDER]
    assert [example.prompt_id for example in examples] == sorted(results.prompts["test"])[:2]


def test_completions_that_lack_a_shown_one_are_damaged(copied: tuple[Study, Layout]):
    study, layout = copied
    path = layout.completions("runs/base/seed1", "test")
    write_rows(path, [one for one in read_rows(path, CompletionRow) if one.mode == "greedy"])
    with pytest.raises(ResultsError, match="lacks sample 0 of 3 prompts") as caught:
        build_examples(gather(study, layout, SETTINGS), 3)
    assert f"-R {path}" in str(caught.value)


# MERGED FROM test_thumbnails.py: Small images are taken as they are, large ones are made small.


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
