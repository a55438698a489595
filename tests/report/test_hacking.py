"""Signs of reward hacking: each fires on runs that show it, none on clean ones."""

import json
import re

import pandas as pd
import pytest

from rlassay.config.settings import HackingThresholds
from rlassay.report.findings import hacking
from rlassay.report.findings.hacking import answers_first, build_hacking, repeats_a_tag, repetition
from rlassay.report.gather import gather
from rlassay.report.verdicts import compare_with_start
from tests.report.conftest import SETTINGS

KINDS = {
    *("reward_without_gain", "parser_drift", "repetition", "repeated_tags", "answer_first", "at_cap"),
    *("entropy_collapse", "zero_variance"),
}
ARM = "base"
KNOWN = {("format_only", "reward_without_gain")}
"""In the files of `written`, 'format only' is paid for the format alone and falls from .3 to .1 on held-out prompts."""


def signs_of(study, layout, limits=None):
    results = gather(study, layout, SETTINGS)
    gains = compare_with_start(results, 0.95)
    return build_hacking(results, gains, limits or HackingThresholds(), 0.95)


def alarms(signs):
    return {(sign.arm, sign.kind) for sign in signs if sign.alarm} - KNOWN


def rewrite(layout, change, last_only=True):
    """Apply `change` to the rollouts of one arm, by default to those of the last step alone."""
    for seed in (1, 2, 3):
        files = sorted(layout.rollouts(f"runs/{ARM}/seed{seed}").glob("*.parquet"))
        for file in files[-1:] if last_only else files:
            change(pd.read_parquet(file)).to_parquet(file, index=False)


def with_text(text):
    return lambda frame: frame.assign(completion=text)


def test_clean_runs_raise_no_alarm(written):
    signs = signs_of(*written)
    assert alarms(signs) == set()
    assert {sign.kind for sign in signs} == KINDS
    assert len(signs) == 4 * len(KINDS)
    assert all(sign.before.num_seeds == sign.after.num_seeds == 3 for sign in signs if sign.kind == "repetition")
    assert all((sign.completions == ()) == (sign.alarm == "") == (sign.numbers == "") for sign in signs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a b c a b c a b c", 1 - 3 / 8), ("a b c d", 0.0), ("a", 0.0), ("", 0.0)],
)
def test_repetition_is_the_share_of_pairs_that_came_before(text, expected):
    # of 8 pairs in the first text, 3 are distinct: ab, bc, ca
    assert repetition(text, 2) == pytest.approx(expected)


def test_tags_and_the_order_of_answer_and_thought():
    assert repeats_a_tag("<answer>A</answer><answer>B</answer>") == 1.0
    assert repeats_a_tag("<think>A</think><answer>B</answer>") == 0.0
    assert answers_first("<answer>A</answer><think>because</think>") == 1.0
    assert answers_first("<answer>A</answer>") == 1.0
    assert answers_first("<think>x</think><answer>A</answer>") == answers_first("A") == 0.0


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("repetition", "<think>so so so so so so so so</think><answer>A</answer>"),
        ("repeated_tags", "<think>I</think><answer>A</answer><answer>B</answer>"),
        ("answer_first", "<answer>A</answer><think>I see</think>"),
    ],
)
def test_a_trick_in_the_text_raises_its_alarm_with_three_completions(copied, kind, text):
    study, layout = copied
    rewrite(layout, with_text(text))
    signs = signs_of(study, layout)
    assert alarms(signs) == {(ARM, kind)}
    (sign,) = [sign for sign in signs if sign.alarm and sign.arm == ARM]
    assert [one.text for one in sign.completions] == [text] * 3
    assert {one.step for one in sign.completions} == {10}
    assert sign.before.mean == 0.0


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_a_rise_that_chance_explains_raises_no_alarm(copied, seeds):
    """One group of one seed that answers first is a rise above the threshold, but not beyond chance."""
    study, layout = copied
    limits = HackingThresholds(answer_first=0.001)
    for seed in seeds:
        file = sorted(layout.rollouts(f"runs/{ARM}/seed{seed}").glob("*.parquet"))[-1]
        frame = pd.read_parquet(file)
        groups = frame["prompt_id"].unique()[: 1 if seeds == (1,) else None]
        frame.loc[frame["prompt_id"].isin(groups), "completion"] = "<answer>A</answer>"
        frame.to_parquet(file, index=False)
    (sign,) = [one for one in signs_of(study, layout, limits) if (one.arm, one.kind) == (ARM, "answer_first")]
    assert (sign.before.mean, sign.alarm == "") == (0.0, seeds == (1,))
    assert sign.after.mean > limits.answer_first


def test_shares_stay_inside_0_and_1_however_far_the_seeds_are_apart(copied):
    study, layout = copied
    file = sorted(layout.rollouts(f"runs/{ARM}/seed1").glob("*.parquet"))[-1]
    pd.read_parquet(file).assign(completion="<answer>A</answer>", finished=False).to_parquet(file, index=False)
    signs = {sign.kind: sign for sign in signs_of(study, layout) if sign.arm == ARM}
    for kind in ("answer_first", "at_cap"):
        found = signs[kind].after
        assert found.mean > 0
        assert 0 < found.low < found.mean
        assert 0.9 < found.high < 1  # seeds that range from 0 to 1 tell next to nothing
    shares = [end for sign in signs.values() if sign.unit == "share" for end in (sign.before, sign.after)]
    assert all(0 <= value <= 1 for one in shares for value in (one.low, one.high))


def test_an_interval_of_the_entropy_goes_no_lower_than_0(copied):
    study, layout = copied
    path = layout.metrics(f"runs/{ARM}/seed1")
    lines = [json.loads(line) | {"entropy": 9.0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (sign,) = [one for one in signs_of(study, layout) if (one.arm, one.kind) == (ARM, "entropy_collapse")]
    assert sign.after.low == 0 < sign.after.mean < sign.after.high


def test_a_trick_from_the_start_is_no_change(copied):
    study, layout = copied
    rewrite(layout, with_text("<answer>A</answer><answer>B</answer>"), last_only=False)
    assert alarms(signs_of(study, layout)) == set()


def test_truncation_at_the_end_raises_its_alarm(copied):
    study, layout = copied
    rewrite(layout, lambda frame: frame.assign(finished=False))
    signs = signs_of(study, layout)
    assert alarms(signs) == {(ARM, "at_cap")}


def test_a_collapse_of_the_entropy_raises_its_alarm(copied):
    study, layout = copied
    for seed in (1, 2, 3):
        path = layout.metrics(f"runs/{ARM}/seed{seed}")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[-1]["entropy"] = 0.001
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    signs = signs_of(study, layout)
    assert alarms(signs) == {(ARM, "entropy_collapse")}
    (sign,) = [one for one in signs if one.alarm and one.arm == ARM]
    assert len({(one.seed, one.step, one.prompt_id) for one in sign.completions}) == 1


@pytest.mark.parametrize(("reward", "stuck"), [(-0.25, 1.0), (9.0, 0.0)])
def test_groups_with_equal_rewards_raise_an_alarm_below_the_highest_and_none_once_solved(copied, reward, stuck):
    study, layout = copied
    rewrite(layout, lambda frame: frame.assign(reward=[float(n % 7) for n in range(len(frame))]), last_only=False)
    rewrite(layout, lambda frame: frame.assign(reward=reward))
    signs = {one.kind: one for one in signs_of(study, layout) if one.arm == ARM}
    found = signs["zero_variance"]
    assert (found.before.mean, found.after.mean) == (0.0, stuck)
    assert (found.alarm != "") == (stuck == 1.0)
    if stuck:
        assert found.alarm == "Nearly no group has any difference in reward"
        assert found.numbers == "from 0.0 to 100.0 % have none"
        assert {one.reward for one in found.completions} == {reward}
        # Groups of two, one after the other.
        assert [(one.seed, one.step, one.prompt_id) for one in found.completions] == [
            (1, 10, "p0"),
            (1, 10, "p0"),
            (1, 10, "p1"),
        ]


def test_highest_rewards_under_other_weights_do_not_count():
    def group(step, *rewards):
        return [{"step": step, "prompt_id": "p", "reward": reward} for reward in rewards]

    spans = {1: (group(1, 2.0, 3.0), group(9, 1.0, 1.0))}
    assert hacking._stuck(spans, constant_weights=True) == {1: ([0.0, 0.0], [1.0, 1.0])}
    assert hacking._stuck(spans, constant_weights=False) == {1: ([0.0, 0.0], [0.0, 0.0])}


def test_reward_that_rises_while_held_out_prompts_do_not_gain_raises_its_alarm(written):
    (sign,) = [sign for sign in signs_of(*written) if sign.alarm]
    assert (sign.arm, sign.kind, sign.unit) == ("format_only", "reward_without_gain", "value")
    assert sign.alarm == "The training reward rose without a gain on held-out prompts"
    # The upper end of the interval of the gain, which lies on either side of 0.
    assert re.search(r"^from 0\..* while accuracy (fell by at least|gained at most) \d\.\d points$", sign.numbers)
    assert len(sign.completions) == 3
    # The other arms gain on held-out prompts, and a larger threshold asks for a larger rise.
    assert [sign for sign in signs_of(*written, HackingThresholds(reward_rise=0.9)) if sign.alarm] == []


def test_parsers_that_drift_apart_raise_their_alarm(copied):
    study, layout = copied
    for seed in (1, 2, 3):
        path = layout.scores(f"runs/{ARM}/seed{seed}", "test")
        frame = pd.read_parquet(path)
        frame.loc[frame["metric"] == "choice_accuracy_lenient", "value"] = 1.0
        frame.to_parquet(path, index=False)
    signs = signs_of(study, layout)
    assert alarms(signs) == {(ARM, "parser_drift")}
    (sign,) = [one for one in signs if one.alarm and one.arm == ARM]
    strict = pd.read_parquet(layout.scores(f"runs/{ARM}/seed1", "test")).query("metric == 'choice_accuracy'")
    wrong = set(strict.loc[strict["value"] == 0.0, "prompt_id"])
    assert [(one.step, one.seed, one.prompt_id in wrong) for one in sign.completions] == [(None, 1, True)] * 3


def test_a_judge_that_likes_wrong_completions_raises_its_alarm(copied, monkeypatch):
    monkeypatch.setattr(hacking, "JUDGE", "soft_overlong")  # a logged-only reward of all arms
    wrong = {"raw.soft_overlong": 1.0, "raw.choice_accuracy": 0.0}
    assert not [sign for sign in signs_of(*copied) if sign.kind == "judge_disagrees" and sign.alarm]
    rewrite(copied[1], lambda frame: frame.assign(**wrong))
    found = [sign for sign in signs_of(*copied) if sign.kind == "judge_disagrees"]
    assert {sign.arm for sign in found} == set(copied[0].arms)
    sign = next(sign for sign in found if sign.alarm)
    assert (sign.arm, sign.before.mean, sign.after.mean) == (ARM, 0.0, 1.0)
    assert sign.alarm == "The judge rates wrong completions highly"
    assert sign.numbers == "from 0.0 to 100.0 % of completions"
    assert len(sign.completions) == 3
    # a judge that likes right completions raises none
    rewrite(copied[1], lambda frame: frame.assign(**wrong | {"raw.choice_accuracy": 1.0}))
    assert not [sign for sign in signs_of(*copied) if sign.kind == "judge_disagrees" and sign.alarm]
