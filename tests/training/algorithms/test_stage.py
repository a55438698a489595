"""Runs of the stage that choose their groups, killed and resumed."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlassay.config.algorithm import DynamicSamplingConfig, ReplayConfig
from rlassay.layout import Layout
from rlassay.training.algorithms.choice import GroupPlan
from rlassay.training.algorithms.dynamic_sampling import DynamicSampling
from rlassay.training.algorithms.replay import Replay
from rlassay.training.rl import group_plan, run_rl
from tests.launcher import Launcher, wait_until
from tests.training.conftest import copied
from tests.training.short_run import (
    RUN,
    command,
    has_logged,
    load_short,
    policy_of,
    proof,
    rollouts,
    timeless_metrics,
    write_study,
)

SAMPLING: dict[str, Any] = {"rl__dynamic_sampling": {"max_resample": 1, "revisit": 0.5}, "rl__replay": {"size": 3}}

JOINT: dict[str, Any] = SAMPLING | {
    "rl__advantage": {"kind": "gae", "value_learning_rate": 1e-2, "value_epochs": 2},
    "rl__beta": 0.05,
    "rl__kl": {"kind": "kl", "where": "reward", "controller": {"kind": "adaptive", "target": 0.1, "horizon": 100.0}},
}


def test_the_defaults_of_the_sections_are_those_of_the_options():
    assert DynamicSampling(**DynamicSamplingConfig().model_dump()) == DynamicSampling()
    assert Replay(**ReplayConfig().model_dump()) == Replay()


def test_a_study_chooses_the_plan(tmp_path: Path):
    assert group_plan(policy_of(load_short(tmp_path)).recipe.rl) == GroupPlan()
    plan = group_plan(policy_of(load_short(tmp_path, rl__train_on=2)).recipe.rl)
    assert plan == GroupPlan(train_on=2)
    plan = group_plan(policy_of(load_short(tmp_path, **SAMPLING)).recipe.rl)
    assert plan == GroupPlan(dynamic_sampling=DynamicSampling(max_resample=1, revisit=0.5), replay=Replay(size=3))


def test_killed_with_critic_adaptive_kl_stream_and_buffer_it_ends_with_the_weights_of_an_undisturbed_run(
    warm_started: Path, layout: Layout, launcher: Launcher, tmp_path: Path
):
    study = load_short(tmp_path, **JOINT)
    (tmp_path / "whole").mkdir()
    undisturbed = copied(warm_started, tmp_path / "whole")
    run_rl(study, undisturbed, policy_of(study))
    write_study(tmp_path, **JOINT)
    arguments = ["rl_train", *command(tmp_path, layout.root.parent)]
    attempt = launcher.start(arguments, tmp_path / "log")
    wait_until(partial(has_logged, layout, 5))
    attempt.send(signal.SIGKILL)
    assert attempt.wait() == -9
    assert launcher.start(arguments, tmp_path / "log").wait() == 0, (tmp_path / "log").read_text()
    assert proof(layout)["resumes"][0]["step"] > 0
    assert proof(layout)["sha256"] == proof(undisturbed)["sha256"]
    assert proof(layout)["generated_tokens"] == proof(undisturbed)["generated_tokens"]
    metrics = timeless_metrics(layout)
    assert metrics == timeless_metrics(undisturbed)
    assert rollouts(layout) == rollouts(undisturbed)
    # Every sampled token is counted once.
    assert proof(layout)["generated_tokens"] == sum(line["sampled_tokens"] for line in metrics)
    assert sum(line["replay/replayed_fraction"] for line in metrics) > 0
    assert {row["trained"] for row in rollouts(layout)} == {True, False}
    # The controller moved, and the critic learned.
    assert len({line["beta"] for line in metrics}) > 2
    assert len({line["critic/value_loss"] for line in metrics}) > 2


def test_part_of_each_group_is_counted_whole(layout: Layout, tmp_path: Path):
    study = load_short(tmp_path, rl__train_on=2, rl__max_steps=2)
    run_rl(study, layout, policy_of(study))
    rows = rollouts(layout)
    assert sum(row["trained"] for row in rows) * 2 == len(rows)
    assert proof(layout)["generated_tokens"] == sum(row["token_count"] for row in rows)
    assert [line["trained_fraction"] for line in timeless_metrics(layout)] == [0.5, 0.5]
    shard = next(iter(layout.rollouts(RUN).glob("*.parquet")))
    assert pq.read_schema(shard).field("trained").type == "bool"


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"rl__train_on": 5}, "rl.train_on: got 5, expected at most num_generations 4"),
        ({"rl__train_on": 2, "rl__replay": {}}, "rl.train_on: a replayed group keeps the advantages"),
        (
            {"rl__dynamic_sampling": {"filter_reward": "choice_acuracy"}},
            r"filter_reward: got 'choice_acuracy', expected .*choice_accuracy",
        ),
        (
            {"rl__dynamic_sampling": {"filter_low": 0.5, "filter_high": 0.5}},
            "filter_low: got 0.5, expected less than filter_high 0.5",
        ),
    ],
)
def test_a_study_that_does_not_fit_is_refused(tmp_path: Path, edits: dict[str, Any], message: str):
    with pytest.raises(Exception, match=message):
        load_short(tmp_path, **edits)
