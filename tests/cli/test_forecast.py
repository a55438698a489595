"""Forecasts of `rlassay plan`: power against the statistics, hours by hand, deviations of a planted study."""

import json
import platform
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlassay.cli.main import main
from rlassay.cli.plans.estimates import estimate_stages
from rlassay.cli.plans.finished import Noise, Speed, noise_of, speed_of
from rlassay.cli.plans.forecast import best_split, guessed_noise, power_lines, time_line, tokens_line
from rlassay.config import Study, load_study
from rlassay.config.policies import policies
from rlassay.job_times import note_wait
from rlassay.layout import Layout
from rlassay.stats import PlannedTest, deviations_of, minimum_detectable_effect, seeds_needed
from tests.config.studies import content, study, write

UNKNOWN = Speed(source="", rl=None, sft=None, generate=None)
PLAIN = {"pair_sd": 0.0, "matched_seeds": False, "is_share": True}
NOISE = Noise(source="a test", seed_sd=0.03, item_sd=0.1, sample_sd=0.6, **PLAIN)


def plant(layout: Layout, planned: Study, samples: int = 4) -> dict[str, np.ndarray]:
    """Scores of 1 and 0 for all runs but the last arm's third seed; arm -> means, shape (seeds, items)."""
    rng, means = np.random.default_rng(9), {}
    for i, arm in enumerate(planned.arms):
        values = rng.binomial(1, 0.4 + 0.05 * i, (3, 7, samples))
        means[arm] = values.mean(axis=2)
        for seed in planned.seeds:
            if (arm, seed) == ("dr_grpo", 3):
                continue
            path = layout.scores(layout.run(arm, seed), "test")
            path.parent.mkdir(parents=True)
            rows = [
                {"prompt_id": f"p{item}", "mode": mode, "sample": k, "metric": metric, "value": float(value)}
                for mode, metric in (("sampled", "choice_accuracy"), ("greedy", "choice_accuracy"), ("sampled", "x"))
                for item in range(7)
                for k, value in enumerate(values[seed - 1, item] if (mode, metric[0]) == ("sampled", "c") else [9.0])
            ]
            pq.write_table(pa.Table.from_pylist(rows[::-1]), path)
    return means


def test_deviations_of_a_finished_study_are_pooled_over_its_arms(tmp_path: Path):
    planned, layout = study(), Layout(root=tmp_path)
    assert noise_of(planned, layout) is None
    means = plant(layout, planned)
    found = noise_of(planned, layout)
    assert found is not None
    pairs = [(means[arm], means["base"]) for arm in ("accuracy_only", "format_only")]
    pairs.append((means["dr_grpo"][:2], means["base"][:2]))
    parts = [deviations_of(a, b, matched_seeds=False) for a, b in pairs]
    assert found.seed_sd**2 == pytest.approx(np.mean([part.seed_sd**2 for part in parts]))
    assert found.item_sd**2 == pytest.approx(np.mean([part.item_sd**2 for part in parts]))
    # The unbiased variance of one sample of mean p out of 4 is p (1 - p) 4 / 3; both arms add up.
    per_sample = [sum((side * (1 - side)).mean() * 4 / 3 for side in pair) for pair in pairs]
    assert found.sample_sd**2 == pytest.approx(np.mean(per_sample))
    rest = [max(0.0, part.pair_sd**2 - each / 4) for part, each in zip(parts, per_sample, strict=True)]
    assert found.pair_sd**2 == pytest.approx(np.mean(rest))
    assert (found.matched_seeds, found.is_share) == (False, True)
    # With as many samples as measured, the test has the pair deviation that was measured, up to estimates below 0.
    assert found.test(4, 0.95).pair_sd ** 2 == pytest.approx(np.mean(rest) + np.mean(per_sample) / 4)


def test_the_power_lines_are_the_statistics_of_the_plan():
    planned = study(primary={"metric": "choice_accuracy", "smallest_effect": 0.05})
    lines = power_lines(planned, NOISE, 0.95, UNKNOWN, None)
    test = PlannedTest(pair_sd=0.6 / 8**0.5, matched_seeds=False)
    single = minimum_detectable_effect(3, 400, 0.03, 0.1, test=test)
    strict = PlannedTest(pair_sd=0.6 / 8**0.5, confidence=1 - 0.05 / 3, matched_seeds=False)
    corrected = minimum_detectable_effect(3, 400, 0.03, 0.1, test=strict)
    assert lines[0] == "Power at 3 seeds x 400 prompts x 8 samples, from a test:"
    assert f": {100 * single:.1f} points, {100 * corrected:.1f} points after Holm's correction over 3" in lines[1]
    needed = seeds_needed(0.05, 400, 0.03, 0.1, test=test)
    assert f"to find 5.0 points (primary.smallest_effect) in one comparison: {needed} seeds; or" in lines[2]
    assert lines[3].startswith("  best use of the cost of 12 such runs: ")


def test_a_plan_without_power_says_why():
    (line,) = power_lines(study(seeds=[1]), NOISE, 0.95, UNKNOWN, None)
    assert line == "Power: unknown, since one seed measures no variance between seeds"


def test_the_best_split_costs_no_more_and_finds_no_larger_effects():
    planned = study()
    best = best_split(planned, NOISE, 0.95, UNKNOWN, None)
    assert best is not None
    # In tokens at most: 60 steps of 128 completions of 16 to train, 16 for each completion of the evaluation.
    training, completion = 60 * 128 * 16, 16
    assert best.num_seeds * (training + best.num_items * (best.num_samples + 1) * completion) <= 3 * (
        training + 400 * 9 * completion
    )
    test = NOISE.test(8, 0.95)
    assert best.effect <= minimum_detectable_effect(3, 400, 0.03, 0.1, test=test)
    more = best_split(planned, NOISE, 0.95, UNKNOWN, 40)
    assert more is not None
    assert more.effect < best.effect
    # Where seeds agree, more prompts are worth their price; where prompts do, more seeds are.
    by_items = best_split(
        planned, Noise(source="", seed_sd=0.0, item_sd=0.3, sample_sd=0.3, **PLAIN), 0.95, UNKNOWN, 40
    )
    by_seeds = best_split(
        planned, Noise(source="", seed_sd=0.1, item_sd=0.0, sample_sd=0.3, **PLAIN), 0.95, UNKNOWN, 40
    )
    assert by_items is not None
    assert by_seeds is not None
    assert by_items.num_items > by_seeds.num_items
    assert by_seeds.num_seeds > by_items.num_seeds


def test_a_guess_counts_both_arms_seeds_and_the_most_that_sampling_adds():
    found = guessed_noise(0.02, 0.1)
    assert (found.seed_sd, found.item_sd) == (pytest.approx(0.02 * 2**0.5), 0.1)
    test = found.test(8, 0.9)
    assert (test.pair_sd, test.confidence, test.matched_seeds) == (pytest.approx(0.25), 0.9, False)


def finish(layout: Layout, planned: Study, folder: str, seconds: float, host: str | None = None) -> None:
    """A finished training of a policy."""
    policy = policies(planned)[folder]
    manifest = layout.train_manifest(folder, policy.stage)
    layout.state(folder).mkdir(parents=True)
    manifest.write_text(json.dumps({"fingerprint": policy.fingerprint, "seconds": seconds}))
    layout.run_record(folder).write_text(json.dumps({"host": host or platform.node()}))


def test_hours_follow_from_jobs_that_finished_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "config/studies/digits.yaml", content())
    monkeypatch.chdir(tmp_path)
    planned, layout = study(), Layout(root=tmp_path / "digits")
    stages = estimate_stages(planned)
    assert time_line(stages, speed_of(planned, layout)).startswith("Time: unknown until a run with this model")
    for seed, seconds in ((1, 90.0), (2, 120.0), (3, 600.0)):
        finish(layout, planned, layout.run("base", seed), seconds)
    finish(layout, planned, layout.run("dr_grpo", 1), 1e6, host="elsewhere")
    benchmark = layout.benchmark(layout.run("base", 1), "generate-test")
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\n50.5\t0:00:50\n")
    note_wait(benchmark, 14.5)
    found = speed_of(planned, layout)
    # The median run took 120 s for 60 x 128 completions of at most 16 tokens; 36 s answered 400 prompts nine times,
    # after 14.5 s for which other jobs held the GPUs.
    assert (found.rl, found.sft) == (pytest.approx(120 / (60 * 128 * 16)), None)
    assert found.generate == pytest.approx(36 / (400 * 9 * 16))
    # 12 runs of 120 s are 0.4 hours, 14 policies of 36 s 0.14.
    assert time_line(stages, found) == (
        "Time: about 0.54 hours of jobs one after another (RL 0.4, evaluation 0.14; unknown: warm start), at the speed "
        "of finished jobs of digits"
    )
    # Another study with the same model uses them too; one with another model does not.
    assert speed_of(study(name="other", rl__beta=0.1), Layout(root=tmp_path / "other")).rl == found.rl
    assert speed_of(study(name="other", model__layers=3), Layout(root=tmp_path / "other")).rl is None
    sampled_otherwise = study(name="other", rl__engine={"kind": "vllm"}, evaluation__engine={"kind": "vllm"})
    assert speed_of(sampled_otherwise, Layout(root=tmp_path / "other")).rl is None
    assert tokens_line(stages) == "Generated tokens: at most 1,474,560 in training, 806,400 in the evaluation"


def test_results_of_an_engine_give_the_speed_of_that_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "config/studies/digits.yaml", content())
    monkeypatch.chdir(tmp_path)
    vllm, layout = load_study("digits", engine="vllm"), Layout(root=tmp_path / "digits-vllm")
    finish(layout, vllm, layout.run("base", 1), 120.0)

    engine = {"kind": "vllm"}
    other = study(name="other", rl__engine=engine, evaluation__engine=engine)
    found = speed_of(other, Layout(root=tmp_path / "other"))

    assert (found.source, found.rl) == ("digits-vllm", pytest.approx(120 / (60 * 128 * 16)))
    assert speed_of(study(name="other"), Layout(root=tmp_path / "other")).rl is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guess", "-1", "0.1"], "--guess: got [-1.0, 0.1], expected two deviations of at least 0"),
        (["--budget", "7"], "--budget: got 7, expected at least two runs for each of 4 arms"),
        (["--deviations", "token_credit"], "--deviations: token_credit has no two arms with scores of two seeds"),
    ],
)
def test_unusable_arguments_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["plan", "--study", "digits", "--results", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
