"""From watched rows to scenes."""

from typing import Any

import numpy as np
import pytest

from rlassay.records import Media, PromptRow
from rlassay.report.credit_choice import Chosen
from rlassay.report.credit_records import Scene
from rlassay.report.credit_scenes import MAX_CELLS, MAX_WORDS, build_scene, pooled

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
    "advantage": 0.5,
    "reward": 1.5,
    "scale": None,
}


def _scene(*rows: dict[str, Any], prompt: PromptRow = PROMPT) -> Scene:
    return build_scene(Chosen(4, 1, "middle", "p"), {"base": [ROW | row for row in rows]}, prompt)


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


@pytest.mark.parametrize(
    ("advantages", "chosen"), [([0.5, -2.0, 1.0], 1), ([1.0, -1.0], 0), ([0.0, None], 0), ([float("nan"), 0.1], 1)]
)
def test_the_largest_advantage_in_size_is_shown(advantages: list[float | None], chosen: int):
    scene = _scene(*({"advantage": value, "sample": place} for place, value in enumerate(advantages)))
    assert scene.completions[0].sample == chosen
    assert scene.group_size == len(advantages)


def test_of_a_long_completion_both_ends_are_shown():
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


@pytest.mark.parametrize("count", [0, 2])
def test_no_heat_without_exactly_one_image(count: int):
    scene = _scene({}, prompt=PROMPT.model_copy(update={"media": PROMPT.media * count}))
    assert scene.image is None
    assert scene.completions[0].heat is None


def test_a_fine_grid_is_pooled_by_means():
    # 30 x 48 tokens at 24 cells a side: blocks of 2 x 2
    mass = np.arange(30 * 48, dtype=float).reshape(30, 48)
    cells = pooled(mass)
    assert cells.shape == (15, 24)
    assert cells[0, 0] == (0 + 1 + 48 + 49) / 4
    assert cells.mean() == pytest.approx(mass.mean())
    assert pooled(np.ones((MAX_CELLS, 3))).shape == (MAX_CELLS, 3)
    assert pooled(np.ones((25, 1))).shape == (13, 1)
