"""The credit viewer: choice of prompts, scenes by hand, ranked words by hand, and omissions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.records import Media, PromptRow
from rlassay.report import credit_view
from rlassay.report.content import Scene
from rlassay.report.credit_view import (
    MAX_DOCUMENT_WORDS,
    MAX_STEPS,
    MAX_WORDS,
    MIN_COUNT,
    NUM_RANKED,
    SceneChoice,
    WatchedStep,
    build_credit,
    build_scene,
    choose_runs,
    choose_stages,
    possible_scenes,
    rank_words,
    watched_by_stage,
)
from rlassay.report.figures import assign_marks
from rlassay.report.gather import Results, ResultsError, gather
from rlassay.report.page import render_page
from rlassay.report.read.training import read_watched, watched_steps
from rlassay.report.run import build_content
from tests.report.by_hand import hand_results
from tests.report.conftest import SETTINGS
from tests.report.synthetic_credit import drop_columns, row_of, write_shard


def test_every_scene_shows_every_arm_on_one_prompt(credit_results: Results):
    credit = build_credit(credit_results, 0.95)
    assert credit is not None
    assert credit.seed == 1
    # Four steps were watched, two prompts each; four arms, so six scenes are 24 completions.
    assert [(scene.step, scene.rank, scene.stage) for scene in credit.scenes] == [
        (1, 0, "first"),
        (1, 1, "first"),
        (3, 0, "middle"),
        (3, 1, "middle"),
        (4, 0, "last"),
        (4, 1, "last"),
    ]
    for scene in credit.scenes:
        assert [one.arm for one in scene.completions] == list(credit_results.study.arms)
        assert scene.question.startswith("Which digit is on the left?")
        assert (credit_results.layout.report / str(scene.image)).resolve().is_file()
    base, attention, filtered, scaled = credit.scenes[0].completions
    assert {word.weight for word in base.words} == {1.0}
    assert (base.heat, base.scale) == (None, None)
    assert attention.heat is not None
    assert {word.weight for word in filtered.words} <= {0.0, 1.0}
    assert scaled.scale is not None
    assert [arm.arm for arm in credit.words] == list(credit_results.study.arms)
    assert credit.words[0].even == 1.0
    assert credit.words[2].most[0].weight.mean == 1.0


def test_without_token_shards_there_is_no_credit(results: Results):
    assert build_credit(results, 0.95) is None


def test_equal_weights_without_signals_are_not_shown(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    for arm in list(study.arms)[1:]:
        for seed in study.seeds:
            for path in layout.tokens(layout.run(arm, seed)).iterdir():
                path.unlink()
    assert build_credit(gather(study, layout, SETTINGS), 0.95) is None


def test_first_prompts_come_first_if_not_all_fit(credit_results: Results, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(credit_view, "MAX_COMPLETIONS", 9)
    credit = build_credit(credit_results, 0.95)
    assert credit is not None
    assert [(scene.step, scene.rank) for scene in credit.scenes] == [(1, 0), (4, 0)]
    assert "2 of the 6 prompts that all arms recorded at these steps are shown." in credit.note


def test_an_arm_that_is_not_shown_is_named(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    for seed in study.seeds:
        for path in layout.tokens(f"runs/dr_grpo/seed{seed}").iterdir():
            path.unlink()
    credit = build_credit(gather(study, layout, SETTINGS), 0.95)
    assert credit is not None
    assert credit.note.endswith("Arms not shown: 'dr grpo'.")
    assert len(credit.scenes[0].completions) == 3


def test_arms_without_a_common_prompt_still_have_words(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    for path in layout.tokens("runs/base/seed1").iterdir():
        write_shard(path.parent, int(path.stem[4:]), [])
    credit = build_credit(gather(study, layout, SETTINGS), 0.95)
    assert credit is not None
    assert credit.scenes == ()
    assert credit.note == "No completions are shown, because the arms recorded no prompt in common."
    assert len(credit.words) == 4


def test_prompts_missing_from_the_data_are_named(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    path = layout.split("train")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(ResultsError, match=r"it lacks \d+ prompts of the training") as caught:
        build_credit(gather(study, layout, SETTINGS), 0.95)
    assert f"-R {layout.data_manifest}" in str(caught.value)


def test_the_same_files_give_the_same_page_and_hostile_text_stays_text(credit_files: tuple[Study, Layout]):
    study, layout = credit_files
    first, again = (build_content(gather(study, layout, SETTINGS), SETTINGS.report) for _ in range(2))
    assert first.model_dump_json() == again.model_dump_json()
    page = render_page(first, assign_marks(first), [], layout.report)
    assert page == render_page(again, assign_marks(again), [], layout.report)
    assert "&lt;script&gt;" in page.split('<section id="credit"')[1].split("</section>")[0]
    assert page.count("<script") == 1  # that of the page
    assert {job.signals_share for job in first.cost if job.policy.startswith("runs/base")} == {None}
    assert {job.signals_share for job in first.cost if job.policy.startswith("runs/dr_grpo")} == {0.25}


# Choosing runs, steps and prompts.


@pytest.mark.parametrize(
    ("steps", "chosen"),
    [
        ([], {}),
        ([7], {"first": 7}),
        ([1, 9], {"first": 1, "last": 9}),
        ([1, 2, 9], {"first": 1, "last": 9, "middle": 2}),
        ([1, 3, 5, 7], {"first": 1, "last": 7, "middle": 5}),
    ],
)
def test_first_middle_and_last_step(steps: list[int], chosen: dict[str, int]):
    assert choose_stages(steps) == chosen
    assert list(choose_stages(steps)) == list(chosen)


def test_possible_scenes_are_prompts_that_all_arms_watched():
    first = WatchedStep(1, {"base": {"p": [], "q": [], "r": []}, "other": {"r": [], "q": []}})
    last = WatchedStep(9, {"base": {"s": []}, "other": {"s": []}})
    # p is not watched by the other arm; q was watched before r by the first arm
    assert possible_scenes({"first": first, "last": last}) == [
        SceneChoice(1, 0, "first", "q"),
        SceneChoice(9, 0, "last", "s"),
        SceneChoice(1, 1, "first", "r"),
    ]


def test_the_first_seed_with_most_arms_is_chosen(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    assert choose_runs(gather(study, layout, SETTINGS))[0] == 1
    for path in layout.tokens("runs/base/seed1").iterdir():
        path.unlink()
    seed, runs = choose_runs(gather(study, layout, SETTINGS))
    assert (seed, list(runs)) == (2, list(study.arms))
    assert runs["base"] == "runs/base/seed2"


def test_a_stage_is_a_step_of_all_arms(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    results = gather(study, layout, SETTINGS)
    _, runs = choose_runs(results)
    watched_steps(layout.tokens(runs["base"]))[1].unlink()
    watched_steps(layout.tokens(runs["dr_grpo"]))[4].unlink()
    assert {stage: at.step for stage, at in watched_by_stage(results, runs).items()} == {
        "first": 2,
        "last": 3,
    }


def test_without_token_shards_nothing_is_watched(results: Results):
    assert choose_runs(results) == (1, {})


@pytest.mark.parametrize("damage", ["truncated", "column", "length"])
def test_a_damaged_shard_is_named(copied_credit: tuple[Study, Layout], damage: str):
    study, layout = copied_credit
    path = watched_steps(layout.tokens("runs/format_only/seed1"))[1]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:40])
    else:
        drop_columns(path, ["scale"] if damage == "column" else [], shorten=damage == "length")
    results = gather(study, layout, SETTINGS)
    with pytest.raises(ResultsError, match="is damaged") as caught:
        watched_by_stage(results, choose_runs(results)[1])
    assert str(path) in str(caught.value)
    assert f"-R {layout.train_manifest('runs/format_only/seed1')}" in str(caught.value)
    said = {"truncated": "", "column": "scale", "length": "weight has 7 values for 8 tokens"}
    assert said[damage] in str(caught.value)


def test_only_the_requested_columns_are_read(credit_files: tuple[Study, Layout]):
    path = watched_steps(credit_files[1].tokens("runs/base/seed1"))[1]
    assert [list(row) for row in read_watched(path, ("tokens", "weight"))] == [["tokens", "weight"]] * 4


# Building a scene.

PROMPT = PromptRow(prompt_id="p", question="?", answer="B", choices=("x", "y"), media=(Media(path="images/a.png"),))
ROW: dict[str, Any] = {
    "sample": 0,
    "tokens": ["two", " wor", "ds", ""],
    "weight": [0.5, 1.0, 2.0, 0.0],
    "entropy": [0.1, 0.2, 0.4, 0.0],
    "perception": [1.0, float("nan"), 3.0, None],
    "dominance": None,
    "vision_attention": [0.1, 0.0, 0.05, 0.2, 0.0, 0.05],
    "vision_grid": [2, 3],
    "document_tokens": None,
    "document_attention": None,
    "advantage": 0.5,
    "reward": 1.5,
    "scale": None,
}


def _scene(*rows: dict[str, Any], prompt: PromptRow = PROMPT) -> Scene:
    return build_scene(SceneChoice(4, 1, "middle", "p"), {"base": [ROW | row for row in rows]}, prompt, {})


def test_a_scene_by_hand():
    scene = _scene({})
    assert (scene.stage, scene.step, scene.rank, scene.prompt_id, scene.group_size) == ("middle", 4, 1, "p", 1)
    assert (scene.question, scene.choices, scene.answer, scene.image) == ("?", ("x", "y"), "B", "../data/images/a.png")
    (shown,) = scene.completions
    assert (shown.arm, shown.sample, shown.reward, shown.advantage, shown.scale) == ("base", 0, 1.5, 0.5, None)
    two, words, end = shown.words
    assert (two.text, two.weight, two.entropy, two.perception, two.num_tokens) == ("two", 0.5, 0.1, 1.0, 1)
    # weight (1 + 2) / 2, entropy (.2 + .4) / 2, perception over the one finite value
    assert (words.text, words.weight, words.entropy, words.perception, words.num_tokens) == ("words", 1.5, 0.3, 3.0, 2)
    assert (end.weight, end.perception, end.dominance) == (0.0, None, None)
    assert shown.heat is not None
    assert (shown.heat.rows, shown.heat.cols, shown.heat.total) == (2, 3, 0.4)
    assert shown.heat.cells == (0.1, 0.0, 0.05, 0.2, 0.0, 0.05)


def test_a_scene_of_several_images_counts_them_and_shows_none():
    scene = _scene({}, prompt=PROMPT.model_copy(update={"media": PROMPT.media * 3}))
    assert (scene.image, scene.num_media, scene.completions[0].heat) == (None, 3, None)


@pytest.mark.parametrize(
    ("advantages", "chosen"), [([0.5, -2.0, 1.0], 1), ([1.0, -1.0], 0), ([0.0, None], 0), ([float("nan"), 0.1], 1)]
)
def test_the_largest_advantage_in_size_is_shown(advantages: list[float | None], chosen: int):
    scene = _scene(*({"advantage": value, "sample": place} for place, value in enumerate(advantages)))
    assert scene.completions[0].sample == chosen
    assert scene.group_size == len(advantages)


def test_a_long_completion_shows_its_two_ends():
    tokens = [f" {'ab'[place % 2]}" for place in range(MAX_WORDS + 7)]
    values = [float(place) for place in range(len(tokens))]
    signals = dict.fromkeys(("weight", "entropy", "perception"), values)
    (shown,) = _scene({"tokens": tokens, **signals}).completions
    assert (len(shown.words), shown.omitted) == (MAX_WORDS, 7)
    half = MAX_WORDS // 2
    assert [word.weight for word in shown.words] == values[:half] + values[half + 7 :]


@pytest.mark.parametrize(
    "change",
    [
        {"vision_attention": None},
        {"vision_grid": None},
        {"vision_grid": [3, 3]},
        {"vision_attention": [0.1, None, 0.05, 0.2, 0.0, 0.05]},
    ],
)
def test_no_heat_without_one_number_per_cell(change: dict[str, Any]):
    assert _scene(change).completions[0].heat is None


def test_a_document_by_hand():
    # The token `s I` belongs half to each word.
    document = {
        "document_tokens": ["Read", "ing", " file", "s I", "!"],
        "document_attention": [0.1, 0.2, 0.05, 0.1, 0.0],
    }
    (shown,) = _scene(document).completions
    assert shown.document is not None
    assert [(word.before, word.text, word.attention) for word in shown.document.words] == [
        ("", "Reading", 0.3),
        (" ", "files", 0.1),
        (" ", "I!", 0.05),
    ]
    assert (shown.document.omitted, shown.document.total) == (0, 0.45)


def test_a_long_document_loses_its_end():
    count = MAX_DOCUMENT_WORDS + 9
    (shown,) = _scene({"document_tokens": [" a"] * count, "document_attention": [0.5 / count] * count}).completions
    assert shown.document
    assert (len(shown.document.words), shown.document.omitted) == (MAX_DOCUMENT_WORDS, 9)
    assert shown.document.total == pytest.approx(0.5)


@pytest.mark.parametrize("attention", [None, [0.1], [0.1, float("nan")]])
def test_no_document_without_one_number_per_token(attention: list[float] | None):
    assert _scene({"document_tokens": ["a", " b"], "document_attention": attention}).completions[0].document is None


def test_shards_of_earlier_versions_have_no_document(copied_credit: tuple[Study, Layout]):
    path = watched_steps(copied_credit[1].tokens("runs/base/seed1"))[1]
    assert {row["document_tokens"] for row in read_watched(path)} == {None}


@pytest.mark.parametrize("count", [0, 2])
def test_no_heat_without_exactly_one_image(count: int):
    scene = _scene({}, prompt=PROMPT.model_copy(update={"media": PROMPT.media * count}))
    assert scene.image is None
    assert scene.completions[0].heat is None


# Ranking words.


@pytest.fixture
def hand(tmp_path) -> Results:
    """Two arms x two seeds on an empty folder."""
    made = hand_results({"base": np.zeros((2, 2)), "dr_grpo": np.zeros((2, 2)), "sft": np.zeros((1, 2))})
    return replace(made, **({"layout": Layout(root=tmp_path)}))


def _write(results: Results, arm: str, seed: int, tokens: list[str], weight: list[float], steps: int = 1) -> None:
    row: dict[str, Any] = row_of(tokens=tokens, weight=weight)
    for step in range(1, steps + 1):
        write_shard(results.layout.tokens(f"runs/{arm}/seed{seed}"), step, [row] * MIN_COUNT)


def test_means_and_intervals_by_hand(hand: Results):
    _write(hand, "base", 1, ["Cat", " dog.", " a"], [2.0, 0.4, 1.0])
    _write(hand, "base", 2, [" cat", " DOG", " cat"], [2.4, 0.2, 3.0])
    (base,) = rank_words(hand, 0.95)
    assert (base.arm, base.num_seeds, base.num_completions) == ("base", 2, 2 * MIN_COUNT)
    assert (base.num_words, base.even) == (3, None)
    # Seed 1: cat 2, dog .4, a 1. Seed 2: cat (2.4 + 3) / 2 = 2.7, dog .2. Over seeds: cat 2.35, dog .3, a 1.
    assert [(one.word, one.weight.mean) for one in (*base.most, *base.least)] == [("cat", 2.35), ("dog", 0.3)]
    cat = base.most[0].weight
    assert (cat.num_seeds, cat.num_items) == (2, 3 * MIN_COUNT)
    # Two seeds: t(1) = 12.706205, s / sqrt(2) = |2 - 2.7| / 2.
    assert cat.high == pytest.approx(2.35 + 12.706205 * 0.35, abs=1e-5)


def test_rare_words_are_not_ranked(hand: Results):
    rare = row_of(tokens=["rare"], weight=[9.0])
    common = row_of(tokens=["b", " c"], weight=[1.0, 2.0])
    write_shard(hand.layout.tokens("runs/base/seed1"), 1, [rare] * (MIN_COUNT - 1) + [common] * MIN_COUNT)
    (base,) = rank_words(hand, 0.95)
    assert base.num_words == 2
    assert [one.word for one in (*base.most, *base.least)] == ["c", "b"]


def test_equal_weights_are_reported_and_not_ranked(hand: Results):
    _write(hand, "dr_grpo", 1, ["a", " b", " c"], [0.7, 0.7, 0.7])
    (arm,) = rank_words(hand, 0.95)
    assert (arm.arm, arm.even, arm.most, arm.least) == ("dr_grpo", 0.7, (), ())


def test_rankings_are_limited_and_share_no_word(hand: Results):
    letters = [chr(ord("a") + place) for place in range(3 * NUM_RANKED)]
    _write(hand, "base", 1, [f" {one}" for one in letters], [float(place) for place in range(len(letters))])
    _write(hand, "dr_grpo", 1, [" a", " b", " c"], [1.0, 2.0, 3.0])
    many, few = rank_words(hand, 0.95)
    assert [one.word for one in many.most] == letters[: -NUM_RANKED - 1 : -1]
    assert [one.word for one in many.least] == letters[:NUM_RANKED]
    assert [one.word for one in (*few.most, *few.least)] == ["c", "a"]


def test_ties_are_in_alphabetical_order(hand: Results):
    _write(hand, "base", 1, ["d", " c", " b", " a"], [1.0, 1.0, 0.0, 0.0])
    (base,) = rank_words(hand, 0.95)
    assert [one.word for one in base.most] == ["c", "d"]
    assert [one.word for one in base.least] == ["a", "b"]


def test_evenly_spaced_steps_of_a_long_run_are_read(hand: Results):
    _write(hand, "base", 1, ["a"], [1.0], steps=3 * MAX_STEPS)
    assert rank_words(hand, 0.95)[0].num_completions == MAX_STEPS * MIN_COUNT


def test_without_shards_no_arm_is_ranked(hand: Results):
    assert rank_words(hand, 0.95) == []
