"""Sequential seeds in a study file, and the policies that its looks ask for."""

from pathlib import Path

import pytest

from rlassay.config import StudyError, load_study
from rlassay.config.fingerprints import rl_id
from rlassay.config.policies import asked_policies, seeds_by_arm
from rlassay.files import write_json
from rlassay.layout import Layout
from tests.config.studies import study

SEEDS = {"start": 2, "max": 7, "step": 2}


def test_looks_end_at_the_most_seeds():
    loaded = study(seeds=SEEDS)

    assert loaded.sequential is not None
    assert loaded.sequential.looks == (2, 4, 6, 7)
    assert loaded.seeds == (1, 2, 3, 4, 5, 6, 7)


def test_a_run_has_the_fingerprint_that_it_has_with_listed_seeds():
    assert rl_id(study(seeds=SEEDS), "base", 3) == rl_id(study(seeds=[3]), "base", 3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seeds": {"start": 3}}, "seeds.max: missing"),
        ({"seeds": {"start": 3, "max": 3}}, "seeds.max: got the number 3, expected more than seeds.start"),
        ({"seeds": {"start": 1, "max": 3}}, "seeds.start: got the number 1, expected a number of at least 2"),
        ({"seeds": {**SEEDS, "stop": "decide"}}, "did you mean 'decided'?"),
        ({"seeds": {**SEEDS, "steps": 1}}, "did you mean 'step'?"),
        (
            {"seeds": {**SEEDS, "stop": "decided_or_hopeless"}, "primary": {"set": "test"}},
            "declare one, or set seeds.stop to decided",
        ),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], problem: str):
    with pytest.raises(StudyError, match=problem.replace("?", r"\?")):
        study(**changes)


def test_a_scale_changes_the_rounds_of_a_study_that_has_some():
    assert load_study("reward_ingredients", "tiny").sequential == load_study(
        "reward_ingredients"
    ).sequential.model_copy(update={"start": 2, "max": 4, "step": 1})  # pyright: ignore[reportOptionalMemberAccess] it has
    assert load_study("digits", "tiny").sequential is None


def test_only_undecided_arms_and_the_baseline_get_more_seeds(tmp_path: Path):
    loaded, layout = study(seeds=SEEDS), Layout(root=tmp_path)
    arms, other = list(loaded.arms), next(arm for arm in loaded.arms if arm != loaded.baseline)
    assert seeds_by_arm(loaded, layout) == dict.fromkeys(arms, (1, 2))

    write_json(layout.decision(1), {"undecided": [other]})
    write_json(layout.decision(2), {"undecided": []})
    write_json(layout.decision(3), {"undecided": [other]})  # left over from an earlier version

    expected = {arm: (1, 2, 3, 4) if arm in (other, loaded.baseline) else (1, 2) for arm in arms}
    assert seeds_by_arm(loaded, layout) == expected
    assert seeds_by_arm(loaded, layout, before=1) == dict.fromkeys(arms, (1, 2))
    runs = [policy.folder for policy in asked_policies(loaded, layout).values() if policy.stage == "rl"]
    assert len(runs) == sum(len(seeds) for seeds in expected.values())
    assert f"runs/{other}/seed4" in runs


def test_a_study_with_fixed_seeds_needs_all_of_them(tmp_path: Path):
    loaded = study(seeds=[5, 3])

    assert seeds_by_arm(loaded, Layout(root=tmp_path)) == dict.fromkeys(loaded.arms, (5, 3))
