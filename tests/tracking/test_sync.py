"""Every value of a study reaches MLflow once, whatever happened to the jobs that wrote it."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

from rlassay.config.credit import AttentionWeights, UniformCredit
from rlassay.config.policies import Policy, policies
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.tracking.names import CURRENT, POLICY, STAGE
from rlassay.tracking.runs import parent_params, run_params
from rlassay.tracking.store import Store
from rlassay.tracking.sync import Feed, evaluation_means, sync_study
from tests.tracking.folders import START, STEPS, FakeJob, keep_curve, line, small_folder, small_study
from tests.tracking.reading import Reader

RUN = "runs/base/seed1"
NAME = "base seed 1 rl"
ALL = [(step, step / 10) for step in range(1, STEPS + 1)]


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    study = small_study()
    return FakeJob.of(study, small_folder(tmp_path / "results", study), RUN)


@pytest.fixture
def feed(job: FakeJob, reader: Reader) -> Feed:
    store = Store(reader.uri, job.study.id, job.layout.tracking)
    return Feed(store, job.study, job.layout, job.policy)


def sync(job: FakeJob, reader: Reader) -> int:
    return sync_study(job.study, job.layout, reader.uri)


def test_a_finished_run_arrives_complete_and_a_second_sync_changes_nothing(job: FakeJob, reader: Reader) -> None:
    job.note("finished")
    job.log(range(1, STEPS + 1), infinite=math.inf)
    job.roll_out(4)
    job.roll_out(6)
    assert sync(job, reader) == 2 * STEPS  # reward and pass@1; null and inf are no values

    run = reader.run(NAME)
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (START * 1000, (START + 100) * 1000)
    assert reader.points(run, "reward") == ALL
    assert set(run.data.metrics) == {"reward", "pass_at_1"}
    assert (run.data.tags[POLICY], run.data.tags[STAGE], run.data.tags[CURRENT]) == (RUN, "rl", "true")
    assert [used.dataset.name for used in run.inputs.dataset_inputs] == ["train"]
    assert json.loads(run.inputs.dataset_inputs[0].dataset.profile) == {"num_rows": 3}
    assert yaml.safe_load(reader.artifact(run, "config.yaml"))["rl"]["learning_rate"] == 2e-4
    table = json.loads(reader.artifact(run, "rollouts.json"))
    columns = ["step", "prompt", "gold", "completion", "reward", "accuracy", "advantage"]
    assert table["columns"] == [*columns, "token_count", "sample", "prompt_id"]
    assert table["data"][1] == [4, "q", "a", "<script>", None, 1.0, 0.25, 5, 1, "train1"]
    assert [row[0] for row in table["data"]] == [4, 4, 4, 6, 6, 6]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "rollouts.json", "type": "table"}]

    before = reader.dump()
    assert sync(job, reader) == 0
    assert reader.dump() == before


def test_runs_are_children_of_their_arm_whose_status_summarises_theirs(tmp_path: Path, reader: Reader) -> None:
    study = small_study(seeds=(1, 2))
    layout = small_folder(tmp_path / "results", study)
    first, second = (FakeJob.of(study, layout, f"runs/base/seed{seed}") for seed in (1, 2))
    first.note("finished")
    second.note("failed", error="ValueError: no")
    sync(first, reader)
    parent = reader.run("base")
    children = [reader.run(f"base seed {seed} rl") for seed in (1, 2)]
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [parent.info.run_id] * 2
    assert [child.info.status for child in children] == ["FINISHED", "FAILED"]
    assert parent.info.status == "FAILED"
    second.note("finished")
    sync(first, reader)
    assert reader.run("base").info.status == "FINISHED"


def test_lines_are_fed_as_they_come_and_an_unfinished_one_waits(job: FakeJob, feed: Feed, reader: Reader) -> None:
    assert feed.update() == 0  # nothing has started
    job.note("running")
    job.log([1, 2])
    metrics = job.layout.metrics(RUN)
    whole = json.dumps(line(3)) + "\n"
    with metrics.open("a") as out:
        out.write(whole[:20])
    assert feed.update() == 4
    assert feed.update() == 0
    with metrics.open("a") as out:
        out.write(whole[20:])
    assert feed.update() == 2
    assert reader.points(reader.run(NAME), "reward") == ALL[:3]


def test_points_of_the_held_out_curve_are_fed_as_they_come(job: FakeJob, reader: Reader) -> None:
    evaluation = job.study.evaluation.model_copy(update={"every": 2})
    study = job.study.model_copy(update={"evaluation": evaluation})
    feed = Feed(Store(reader.uri, study.id, job.layout.tracking), study, job.layout, job.policy)
    job.note("running")
    job.log([1, 2, 3])
    keep_curve(job, "test", {2: 0.25})
    feed.update()
    assert reader.points(reader.run(NAME), "held_out/test/accuracy/sampled") == [(2, 0.25)]
    keep_curve(job, "test", {2: 0.25, 4: 0.5, 6: None})
    feed.update()
    assert reader.points(reader.run(NAME), "held_out/test/accuracy/sampled") == [(2, 0.25), (4, 0.5)]
    # The points of an earlier training are none of this one's.
    record = json.loads(job.layout.curve_record(RUN, "test").read_text())
    job.layout.curve_record(RUN, "test").write_text(json.dumps(record | {"training": "earlier"}))
    assert feed.update() == 0


def test_a_resumed_job_continues_its_run_without_a_step_twice(job: FakeJob, feed: Feed, reader: Reader) -> None:
    job.note("running")
    job.log(range(1, 5))
    feed.update()
    run_id = reader.run(NAME).info.run_id
    # Killed after step 4, resumed from the checkpoint of step 2: steps 3 and 4 are done, and logged, a second time.
    job.note("running", [(0, 0.0, 4.0), (2, 50.0, None)])
    job.cut_back(2)
    job.log([3, 4, 5], at=50.0)
    feed.update()
    job.log([6], at=50.0)
    job.note("finished", [(0, 0.0, 4.0), (2, 50.0, 60.0)])
    feed.finish()
    run = reader.run(NAME)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert reader.points(run, "reward") == ALL
    assert reader.duplicates() == []


def test_a_file_truncated_and_regrown_between_updates_loses_no_step(job: FakeJob, feed: Feed, reader: Reader) -> None:
    job.note("running")
    job.log(range(1, 4))
    feed.update()
    job.cut_back(1)
    job.log([2], at=7.0, padding="x" * 40)  # longer than before: the old offset is within another line
    job.log(range(3, STEPS + 1), at=7.0)
    feed.update()
    assert reader.points(reader.run(NAME), "reward") == ALL


def test_another_metric_of_a_known_step_is_written(job: FakeJob, feed: Feed, reader: Reader) -> None:
    job.note("running")
    job.log([1, 2])
    feed.update()
    with job.layout.metrics(RUN).open("a") as out:
        out.write(json.dumps({"step": 2, "time": START + 2.5, "kl": 0.5}) + "\n")
    feed.update()
    assert reader.points(reader.run(NAME), "kl") == [(2, 0.5)]


def test_a_start_from_step_0_is_a_new_run_and_the_old_one_is_marked_killed(
    job: FakeJob, feed: Feed, reader: Reader
) -> None:
    job.note("running", [(0, 0.0, None)])
    job.log(range(1, 4))
    with job.at_work():
        feed.update()
    assert reader.run(NAME).info.status == "RUNNING"
    job.note("finished", [(0, 500.0, 600.0)])
    job.cut_back(0)
    job.log(range(1, STEPS + 1), at=500.0)
    feed.finish()
    old, new = reader.runs()[NAME]
    assert [(run.info.status, run.data.tags[CURRENT]) for run in (old, new)] == [
        ("KILLED", "false"),
        ("FINISHED", "true"),
    ]
    assert reader.points(old, "reward") == ALL[:3]
    assert reader.points(new, "reward") == ALL


def test_a_vanished_job_is_killed_and_ends_at_its_last_line(job: FakeJob, reader: Reader) -> None:
    job.note("running")
    job.log([1, 2])
    sync(job, reader)
    run = reader.run(NAME)
    assert (run.info.status, run.info.end_time) == ("KILLED", (START + 2) * 1000)


def test_a_changed_param_keeps_its_value_and_breaks_nothing(job: FakeJob, reader: Reader) -> None:
    job.note("finished")
    job.log([1])
    sync(job, reader)
    job.study = job.study.model_copy(update={"gpus": 3})  # identifies no result
    job.log([2])
    assert sync(job, reader) == 2
    assert reader.run(NAME).data.params["gpus"] == "0"


def test_another_arm_adds_its_params_to_existing_runs(job: FakeJob, reader: Reader) -> None:
    job.note("finished")
    sync(job, reader)
    study = small_study(("base", "plain", "third"))
    arm = study.arms["third"]
    extra = arm.recipe.rewards | {"brevity": arm.recipe.rewards["format"]}
    arms = study.arms | {"third": arm.model_copy(update={"recipe": arm.recipe.model_copy(update={"rewards": extra})})}
    job.study = study.model_copy(update={"arms": arms})
    sync(job, reader)
    assert reader.run(NAME).data.params["reward.brevity"] == "0.0"
    assert reader.run("base").data.params["reward.brevity"] == "0.0"


def test_a_deleted_run_is_created_again(job: FakeJob, feed: Feed, reader: Reader) -> None:
    job.note("running")
    job.log([1])
    feed.update()
    reader.client.delete_run(reader.run(NAME).info.run_id)
    job.log([2])
    with pytest.raises(Exception, match="deleted"):
        feed.update()
    feed.update()
    assert reader.points(reader.run(NAME), "reward") == ALL[:2]


def test_an_evaluation_is_the_mean_over_prompts(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path)
    path = layout.scores("runs/a/seed1", "test")
    path.parent.mkdir(parents=True)
    rows = [
        ("p", "sampled", "accuracy", 1.0),
        ("p", "sampled", "accuracy", None),  # not scored: p counts with 1.0
        ("q", "sampled", "accuracy", 0.0),
        ("q", "sampled", "accuracy", 0.5),
        ("r", "sampled", "accuracy", None),  # never scored: does not count
        ("p", "greedy", "accuracy", 0.0),
        ("p", "greedy", "rouge", None),
    ]
    pd.DataFrame(rows, columns=["prompt_id", "mode", "metric", "value"]).to_parquet(path, index=False)
    # (1.0 + 0.25) / 2
    facts = evaluation_means(layout, "runs/a/seed1", ["test"])
    assert facts == {"test/accuracy/sampled": 0.625, "test/accuracy/greedy": 0.0}


def of_stage(study: Study, stage: str) -> Policy:
    """The first policy of a stage."""
    return next(policy for policy in policies(study).values() if policy.stage == stage)


def test_every_run_of_a_study_has_the_same_keys_but_weights_of_rewards_which_only_arms_have() -> None:
    study = small_study(brevity=0.25)
    of_weights = {"reward.accuracy", "reward.format", "reward.brevity"}
    found = {
        (make, policy.folder): set(make(study, policy)) | (set() if policy.stage == "rl" else of_weights)
        for make in (run_params, parent_params)
        for policy in policies(study).values()
    }
    assert len(found) == 8  # model, warm start, two arms; each as a run and as a parent
    assert len({frozenset(keys) for keys in found.values()}) == 1


def test_a_reward_that_an_arm_does_not_use_has_weight_0_and_a_warm_start_has_no_weights() -> None:
    study = small_study(brevity=0.25)
    weights = {
        folder: {key: value for key, value in run_params(study, policy).items() if key.startswith("reward.")}
        for folder, policy in policies(study).items()
    }
    assert weights["runs/base/seed1"] == {"reward.accuracy": "1.0", "reward.format": "0.5", "reward.brevity": "0.25"}
    assert weights["runs/plain/seed1"] == {"reward.accuracy": "1.0", "reward.format": "0.0", "reward.brevity": "0.0"}
    assert weights[of_stage(study, "sft").folder] == weights[of_stage(study, "model").folder] == {}


def test_params_are_numbers_where_possible() -> None:
    study = small_study(seeds=(7,))
    params = run_params(study, policies(study)["runs/base/seed7"])
    assert params["seed"] == "7"
    assert params["rl.learning_rate"] == "0.0002"
    assert params["rl.epsilon_high"] == params["rl.epsilon"] == "0.2"  # null means the same value
    assert params["rl.use_bias_correction_kl"] == "1"
    assert params["rl.mask_truncated_completions"] == "0"
    assert params["rl.delta"] == "none"
    assert params["evaluation.sets"] == "test"
    assert params["data.splits.train"] == "3"
    assert params["credit"] == "uniform"


def test_a_run_shows_only_the_sections_its_weights_depend_on() -> None:
    study = small_study()
    start, model = (run_params(study, of_stage(study, stage)) for stage in ("sft", "model"))
    assert (start["sft.max_steps"], start["rl.max_steps"], start["credit"]) == ("4", "none", "none")
    assert (start["seed"], model["seed"]) == ("0", "none")  # the warm start's own seed
    assert (model["model.kind"], model["sft.max_steps"]) == ("tiny_vlm", "none")


def test_weights_that_change_over_training_are_params_too() -> None:
    study = small_study()
    arm = study.arms["base"]
    changed = {
        "accuracy": arm.recipe.rewards["accuracy"].model_copy(update={"early_weight": 0.25}),
        "format": arm.recipe.rewards["format"].model_copy(update={"schedule": ((0.1, 2.0), (0.5, 0.0))}),
    }
    recipe = arm.recipe.model_copy(update={"rewards": arm.recipe.rewards | changed})
    study = study.model_copy(update={"arms": study.arms | {"base": arm.model_copy(update={"recipe": recipe})}})
    params = run_params(study, policies(study)["runs/base/seed1"])
    assert (params["reward.accuracy"], params["reward_early.accuracy"]) == ("1.0", "0.25")
    assert params["reward_schedule.format"] == "0.1:2,0.5:0"
    assert run_params(study, policies(study)["runs/plain/seed1"])["reward_early.accuracy"] == "none"


def test_options_of_rewards_and_several_credit_parts_are_params_too() -> None:
    study = small_study()
    arm = study.arms["base"]
    rewards = arm.recipe.rewards
    format_reward = rewards["format"].model_copy(update={"options": {"cache": 4, "names": ["a", "b"]}})
    parts = (UniformCredit(kind="uniform"), AttentionWeights(kind="attention_weights"))
    recipe = arm.recipe.model_copy(update={"rewards": rewards | {"format": format_reward}, "credit": parts})
    study = study.model_copy(update={"arms": study.arms | {"base": arm.model_copy(update={"recipe": recipe})}})
    params = run_params(study, policies(study)["runs/base/seed1"])
    assert (params["reward.format.cache"], params["reward.format.names"]) == ("4", "a,b")
    assert params["credit"] == "uniform,attention_weights"
    assert (params["credit.attention_weights.clip"], params["credit.attention_weights.sigma"]) == ("0.2,3.0", "0.0")
    assert (params["credit_denominator"], params["entropy_penalty_coef"]) == ("all", "0.0")
    assert params["signals.perception.block"] == "14"
    assert run_params(study, policies(study)["runs/plain/seed1"])["reward.format.cache"] == "none"
