"""Which prompts the credit viewer shows."""

import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report.credit_choice import AtStep, Chosen, candidates, groups_by_stage, stages, watched_runs
from rlassay.report.credit_reading import read_watched, watched_steps
from rlassay.report.gather import Results, gather
from rlassay.report.reading import ResultsError
from tests.report.conftest import SETTINGS
from tests.report.synthetic_credit import drop_columns


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
    assert stages(steps) == chosen
    assert list(stages(steps)) == list(chosen)


def test_candidates_are_the_prompts_that_all_arms_watched():
    first = AtStep(1, {"base": {"p": [], "q": [], "r": []}, "other": {"r": [], "q": []}})
    last = AtStep(9, {"base": {"s": []}, "other": {"s": []}})
    # p is not watched by the other arm; q was watched before r by the first arm
    assert candidates({"first": first, "last": last}) == [
        Chosen(1, 0, "first", "q"),
        Chosen(9, 0, "last", "s"),
        Chosen(1, 1, "first", "r"),
    ]


def test_the_seed_that_most_arms_have(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    assert watched_runs(gather(study, layout, SETTINGS))[0] == 1
    for path in layout.tokens("runs/base/seed1").iterdir():
        path.unlink()
    seed, runs = watched_runs(gather(study, layout, SETTINGS))
    assert (seed, list(runs)) == (2, list(study.arms))
    assert runs["base"] == "runs/base/seed2"


def test_steps_that_an_arm_lacks_are_no_stage(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    results = gather(study, layout, SETTINGS)
    _, runs = watched_runs(results)
    watched_steps(layout.tokens(runs["base"]))[1].unlink()
    watched_steps(layout.tokens(runs["dr_grpo"]))[4].unlink()
    assert {stage: at.step for stage, at in groups_by_stage(results, runs).items()} == {
        "first": 2,
        "last": 3,
    }


def test_without_token_shards_nothing_is_watched(results: Results):
    assert watched_runs(results) == (1, {})


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
        groups_by_stage(results, watched_runs(results)[1])
    assert str(path) in str(caught.value)
    assert f"-R {layout.train_sentinel('runs/format_only/seed1')}" in str(caught.value)
    said = {"truncated": "", "column": "scale", "length": "weight has 7 values for 8 tokens"}
    assert said[damage] in str(caught.value)


def test_only_the_asked_columns_are_read(credit_files: tuple[Study, Layout]):
    path = watched_steps(credit_files[1].tokens("runs/base/seed1"))[1]
    assert [list(row) for row in read_watched(path, ("tokens", "weight"))] == [["tokens", "weight"]] * 4
