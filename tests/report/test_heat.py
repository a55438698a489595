"""Attention laid out over images and film strips."""

import numpy as np
import pytest

from rlassay.records import Media
from rlassay.report.credit_view import SceneChoice, build_scene
from rlassay.report.findings.heat import MAX_CELLS, STRIP_CELLS, film_strip, pool_cells
from tests.report.test_credit_view import PROMPT, ROW, _scene


def test_a_fine_grid_is_pooled_by_means():
    # 30 x 48 tokens at 24 cells a side: blocks of 2 x 2
    mass = np.arange(30 * 48, dtype=float).reshape(30, 48)
    cells = pool_cells(mass)
    assert cells.shape == (15, 24)
    assert cells[0, 0] == (0 + 1 + 48 + 49) / 4
    assert cells.mean() == pytest.approx(mass.mean())
    assert pool_cells(np.ones((MAX_CELLS, 3))).shape == (MAX_CELLS, 3)
    assert pool_cells(np.ones((25, 1))).shape == (13, 1)


def test_a_strip_has_the_grids_of_its_frames_side_by_side():
    mass = np.array([[[0.1, 0.2], [0.0, 0.1]], [[0.3, 0.0], [0.0, 0.0]]])
    strip = film_strip(mass, [0, 1], 2)
    assert strip is not None
    assert strip.cells.tolist() == [[0.1, 0.2, 0.3, 0.0], [0.0, 0.1, 0.0, 0.0]]
    assert strip.frames == (0.4, 0.3)


def test_frames_that_share_tokens_show_the_same_picture_and_share_its_sum():
    # Qwen-VL: frames 0 and 1 have the first tokens, 2 and 3 the second, and 4, repeated by the processor, the third.
    mass = np.array([0.4, 0.2, 0.1]).reshape(3, 1, 1)
    strip = film_strip(mass, [0, 1, 3, 4, 5], 6)
    assert strip is not None
    assert strip.cells.tolist() == [[0.4, 0.4, 0.0, 0.2, 0.2, 0.1]]
    assert strip.frames == (0.2, 0.2, None, 0.1, 0.1, 0.1)
    assert sum(share or 0 for share in strip.frames) == pytest.approx(0.7)


@pytest.mark.parametrize(("times", "frames"), [(4, 3), (4, 5), (3, 7)])
def test_tokens_that_do_not_fit_the_frames_give_no_strip(times: int, frames: int):
    fits = film_strip(np.ones((times, 1, 1)), list(range(frames)), frames)
    assert (fits is None) == ((times, frames) != (3, 7))  # seven frames, three to a set of tokens: 3, 3 and 1


def test_a_strip_is_pooled_frame_by_frame():
    mass = np.zeros((8, 24, 24))
    mass[3] = 1.0
    strip = film_strip(mass, list(range(8)), 8)
    assert strip is not None
    assert strip.cells.shape == (STRIP_CELLS // 8, STRIP_CELLS)
    assert strip.cells.sum(axis=0).tolist() == [0.0] * 18 + [6.0] * 6 + [0.0] * 24


CLIP = Media(kind="video", path="a.mp4", strip="images/s.png", times=(0.0, 0.5, 1.25))


def test_a_clip_shows_its_film_strip_and_the_attention_on_each_frame():
    prompt = PROMPT.model_copy(update={"media": (CLIP,)})
    each = {"vision_attention": [0.1, 0.2, 0.05], "vision_grid": [3, 1, 1]}
    scene = _scene(each, prompt=prompt)
    assert (scene.image, scene.times) == ("../data/images/s.png", (0.0, 0.5, 1.25))
    heat = scene.completions[0].heat
    assert heat is not None
    assert (heat.rows, heat.cols, heat.cells, heat.total) == (1, 3, (0.1, 0.2, 0.05), 0.35)
    assert heat.frames == (0.1, 0.2, 0.05)


def test_frames_that_an_arm_does_not_show_have_no_attention():
    prompt = PROMPT.model_copy(update={"media": (CLIP,)})
    row = ROW | {"vision_attention": [0.1, 0.2], "vision_grid": [2, 1, 1]}
    scene = build_scene(SceneChoice(4, 1, "middle", "p"), {"base": [row], "few": [row]}, prompt, {"few": 2})
    assert scene.completions[0].heat is not None  # two sets of tokens for three frames: two frames share the first
    assert scene.completions[0].heat.frames == (0.05, 0.05, 0.2)
    assert scene.completions[1].heat is not None
    assert scene.completions[1].heat.frames == (0.1, None, 0.2)
    assert scene.completions[1].heat.cells == (0.1, 0.0, 0.2)
