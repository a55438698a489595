"""Requests of jobs to a cluster, and jobs that an earlier Snakemake has left; `squeue` is a script here."""

from pathlib import Path

import pytest

from rlassay.cli.cluster import controller
from rlassay.cli.cluster.controller import (
    check_executor,
    digest,
    earlier_plan,
    note_plan,
    queued,
    wait_for_earlier_jobs,
)
from rlassay.cli.cluster.requests import BASE, UNKNOWN, memory_mb, requests
from rlassay.cli.plans.estimates import parameters
from rlassay.config import Settings, Study, load_study
from rlassay.config.engine import VLLMSampler
from rlassay.config.settings import Resources, Stage, Tracking
from rlassay.training.process import RefusedError


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("digits")


def asked(study: Study, stage: str, **resources: object) -> dict[str, object]:
    settings = Settings(resources=Resources.model_validate(resources))
    found = requests(study, settings, stage)  # pyright: ignore[reportArgumentType]
    return found | {"mem_mb": found["mem_mb"]({}, 1)}


def test_a_job_asks_for_its_stage_and_the_study(study: Study):
    # The built-in model is small: 5 copies of its weights are less than 20 MiB.
    train = asked(study, "rl_train")
    assert train["runtime"] == 1440
    assert train["gpu"] == 0
    assert BASE < int(str(train["mem_mb"])) < BASE + 20
    assert asked(study, "score") == {"mem_mb": 2 * BASE, "runtime": 240, "gpu": 0}
    two = study.model_copy(update={"gpus": 2})
    assert asked(two, "generate")["gpu"] == 2
    assert asked(two, "ablation_report")["gpu"] == 0
    assert 2 * BASE < int(str(asked(two, "generate")["mem_mb"])) < 2 * BASE + 20


def test_runs_on_a_vllm_server_ask_for_it_so_that_one_at_a_time_holds_gpus(study: Study):
    assert "vllm_server" not in asked(study, "rl_train")
    engine = VLLMSampler(kind="vllm", mode="server", server_base_url="http://localhost:8000")
    arm = study.arms[study.baseline]
    rl = arm.recipe.rl.model_copy(update={"engine": engine})
    arm = arm.model_copy(update={"recipe": arm.recipe.model_copy(update={"rl": rl})})
    served = study.model_copy(update={"arms": study.arms | {study.baseline: arm}})
    assert asked(served, "rl_train")["vllm_server"] == 1
    assert "vllm_server" not in asked(served, "generate")


def test_a_process_beside_the_training_asks_for_its_own_gpu_and_memory(study: Study):
    beside = {"every": 10, "while_training": True}
    judged = study.model_copy(update={"evaluation": study.evaluation.model_copy(update=beside)})
    assert asked(judged, "rl_train")["gpu"] == 0
    assert memory_mb(judged, Settings(), "rl_train") == sum(
        memory_mb(study, Settings(), stage) for stage in ("rl_train", "held_out_curve")
    )
    two = judged.model_copy(update={"gpus": 2})  # training on two, the process on a third
    assert asked(two, "rl_train")["gpu"] == 3
    assert asked(two, "held_out_curve")["gpu"] == asked(two, "sft_train")["gpu"] == 2
    assert memory_mb(two, Settings(), "rl_train") == 1.5 * memory_mb(two, Settings(), "sft_train")


def test_vllm_without_gpus_asks_for_its_cache_of_keys_and_values_and_its_copy_of_the_weights(
    study: Study, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    vllm, settings = load_study("digits", engine="vllm"), Settings()

    def added(stage: Stage, other: Study = vllm) -> int:
        return memory_mb(other, settings, stage) - memory_mb(study, settings, stage)

    # 1 GiB; the sixth copy of the small model's weights takes less than 4 MiB.
    assert 1024 < added("rl_train") < 1024 + 4
    assert added("generate") == added("held_out_curve") == 1024
    assert added("sft_train") == added("score") == 0
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert added("generate") == 4096
    # Unless resources.memory_mb says otherwise.
    given = Settings(resources=Resources(memory_mb={"generate": 900}))
    assert memory_mb(vllm, given, "generate") == 900


def test_settings_replace_time_and_memory_by_stage(study: Study):
    own = asked(study, "rl_train", minutes={"rl_train": 7}, memory_mb={"rl_train": 900})
    assert own == {"mem_mb": 900, "runtime": 7, "gpu": 0}
    assert asked(study, "generate", minutes={"rl_train": 7})["runtime"] == 480


def test_a_job_that_is_sent_again_asks_for_more_memory(study: Study):
    memory = requests(study, Settings(resources=Resources(memory_mb={"score": 100})), "score")["mem_mb"]
    assert [memory({}, attempt) for attempt in (1, 2, 3)] == [100, 200, 300]


def test_a_job_of_several_nodes_is_one_task_on_each(study: Study):
    spread = study.model_copy(update={"nodes": 2, "gpus": 4})
    train = asked(spread, "rl_train")
    assert {key: train[key] for key in ("nodes", "tasks", "mpi", "gres", "tasks_per_gpu")} == {
        **{"nodes": 2, "tasks": 2, "mpi": "srun", "gres": "gpu:4", "tasks_per_gpu": 0}
    }
    assert "gpu" not in train
    assert spread.num_processes == 8
    assert "nodes" not in asked(spread, "score")


def test_a_job_that_answers_with_vllm_is_one_process_on_one_gpu():
    vllm = load_study("digits", engine="vllm").model_copy(update={"nodes": 2, "gpus": 4})
    for stage in ("generate", "held_out_curve"):
        answers = asked(vllm, stage)
        assert answers["gpu"] == 1
        assert "nodes" not in answers
        assert BASE < int(str(answers["mem_mb"])) < BASE + 20
        assert vllm.placed(stage).num_processes == 1
    assert asked(vllm, "rl_train")["nodes"] == 2
    halves = vllm.evaluation.engine.model_copy(update={"tensor_parallel_size": 2})
    divided = vllm.model_copy(update={"evaluation": vllm.evaluation.model_copy(update={"engine": halves})})
    assert asked(divided, "generate")["gpu"] == 2
    plain = load_study("digits").model_copy(update={"nodes": 2, "gpus": 4})
    assert plain.placed("generate").num_processes == 8


def test_memory_follows_the_size_in_a_models_name():
    text = load_study("s4_chat")
    arm = next(iter(text.arms.values()))
    name = arm.recipe.model.name  # pyright: ignore[reportAttributeAccessIssue]
    known = memory_mb(text, Settings(), "rl_train")
    assert known > BASE
    unnamed = arm.recipe.model.model_copy(update={"name": "me/my-model"})
    recipe = arm.recipe.model_copy(update={"model": unnamed})
    arms = {"only": arm.model_copy(update={"recipe": recipe})}
    assert memory_mb(text.model_copy(update={"arms": arms}), Settings(), "rl_train") == UNKNOWN * max(1, text.gpus), (
        name
    )


def test_memory_counts_what_is_kept_off_the_gpus_once_for_all_processes():
    study = load_study("s4_chat")
    bare = study.model_copy(update={"gpus": 4, "nodes": 2, "strategy": "fsdp2"})
    moved = bare.model_copy(update={"cpu_offload": True})
    count = max(parameters(arm.recipe.model) or 0 for arm in study.arms.values())
    # Four copies of four bytes on two nodes: half of them on each.
    added = memory_mb(moved, Settings(), "rl_train") - memory_mb(bare, Settings(), "rl_train")
    assert added == pytest.approx(4 * 4 * count / 2 / 2**20, abs=8)
    assert memory_mb(moved, Settings(), "generate") == memory_mb(bare, Settings(), "generate")


def fake_squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, *answers: str) -> Path:
    """A `squeue` that prints its arguments to a file, and its n-th answer at the n-th call, in the end nothing."""
    calls = folder / "calls"
    folder.mkdir(exist_ok=True)
    for number, answer in enumerate(answers):
        (folder / f"answer{number}").write_text(answer)
    script = folder / "squeue"
    script.write_text(
        f'#!/bin/bash\necho "$@" >> {calls}\nanswer={folder}/answer$(($(wc -l < {calls}) - 1))\n'
        '[ ! -e "$answer" ] || cat "$answer"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return calls


def test_jobs_of_an_earlier_snakemake_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(controller, "POLL", 0.01)
    calls = fake_squeue(tmp_path / "bin", monkeypatch, "18 (PENDING)\n17 (RUNNING)\n", "17 (RUNNING)\n")
    assert not wait_for_earlier_jobs(tmp_path)  # no Snakemake has sent jobs
    assert not calls.exists()
    note_plan(tmp_path, "rlassay_one", {"train.json": "ab"})
    assert wait_for_earlier_jobs(tmp_path)
    assert len(calls.read_text().splitlines()) == 3
    assert "--name=rlassay_one" in calls.read_text()
    errors = capsys.readouterr().err
    assert "Waiting for 2 jobs that an earlier Snakemake has sent to Slurm: 17 (RUNNING), 18 (PENDING)" in errors
    assert "scancel --name=rlassay_one" in errors
    assert not wait_for_earlier_jobs(tmp_path)
    assert earlier_plan(tmp_path) == {"train.json": "ab"}
    note_plan(tmp_path, "rlassay_two", {"train.json": "cd"})
    assert earlier_plan(tmp_path) == {"train.json": "cd"}


def test_a_slurm_that_does_not_answer_stops_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = fake_squeue(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin/squeue").write_text("#!/bin/bash\necho 'slurm_load_jobs error: refused' >&2\nexit 1\n")
    with pytest.raises(RefusedError, match=r"cannot list the jobs .* error: refused"):
        queued(["rlassay_one"])
    (tmp_path / "bin/squeue").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(RefusedError, match="is not on this machine"):
        queued(["rlassay_one"])
    assert not calls.exists()


def test_the_digest_of_params_ignores_their_order():
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})
    assert digest({"a": "1", "b": "2"}) != digest({"a": "1", "b": "3"})


def test_what_cannot_work_is_refused_before_any_job(study: Study, monkeypatch: pytest.MonkeyPatch):
    spread = study.model_copy(update={"nodes": 2})
    with pytest.raises(RefusedError, match=r"declares nodes: 2, .* add --profile profiles/slurm"):
        check_executor(spread, Settings(), local=True)
    check_executor(spread, Settings(tracking=Tracking(uri="http://login:5000")), local=False)
    check_executor(spread, Settings(), local=False)
    monkeypatch.setattr(controller, "network_file_system", lambda path: "nfs4")
    with pytest.raises(RefusedError, match=r"sqlite:///mlflow.db, a database on nfs4 .*mlflow server"):
        check_executor(study, Settings(), local=False)
    check_executor(study, Settings(), local=True)
    check_executor(study, Settings(tracking=Tracking(enabled=False)), local=False)
