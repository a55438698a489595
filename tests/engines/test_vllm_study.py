"""A short study whose completions vLLM samples: seeds, the gap to the trainer, and answers by both engines."""

import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from trl.generation.vllm_generation import VLLMGeneration

from rlassay.evaluation.generate import run_generate
from rlassay.layout import Layout
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.records import CompletionRow, read_rows
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft
from rlassay.training.vllm.sampler import SamplerGapError
from tests.engines.vllm_process import needs_vllm, vllm_process
from tests.evaluation.tiny import only
from tests.launcher import Launcher, wait_until
from tests.training.short_run import (
    RUN,
    command,
    fresh_layout,
    has_logged,
    load_short,
    policy_of,
    proof,
    rollouts,
    timeless_metrics,
    write_study,
)

pytestmark = [needs_vllm, pytest.mark.filterwarnings("ignore")]
ENGINE = {"kind": "vllm", "max_model_length": 128}
VLLM: dict[str, Any] = {"rl__engine": ENGINE, "evaluation__engine": ENGINE, "rl__max_steps": 4}
SAMPLED: dict[str, Any] = {"evaluation__num_samples": 1, "evaluation__max_completion_length": 6}
BETWEEN_ENGINES = 0.01
"""The trainer's log-probs count the image token, which neither engine samples: an untrained model gives it 1/300."""


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study after its warm start (`before`), and after the training of two seeds (`results`)."""
    folder = tmp_path_factory.mktemp("study")
    study, layout = load_short(folder, **VLLM, **SAMPLED), fresh_layout(folder / "results")
    run_sft(study, layout, only(study, "sft"))
    shutil.copytree(layout.root, folder / "before/digits")
    for seed in (1, 2):
        with vllm_process():
            run_rl(study, layout, policy_of(study, f"runs/base/seed{seed}"))
    return folder


def results(folder: Path) -> Layout:
    return Layout(root=folder / "results/digits")


def completions(layout: Layout, run: str = RUN) -> list[tuple[int, str, str]]:
    return [(row["step"], row["prompt_id"], row["completion"]) for row in rollouts(layout, run)]


def test_vllm_samples_from_the_policy_of_every_step(study_folder: Path):
    metrics = timeless_metrics(results(study_folder))[:4]

    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    assert all(line[SAMPLER_GAP] < BETWEEN_ENGINES for line in metrics)
    assert all(line["grad_norm"] > 0 for line in metrics)


def test_two_seeds_differ_in_the_first_rollout(study_folder: Path):
    by_seed = [completions(results(study_folder), f"runs/base/seed{seed}") for seed in (1, 2)]
    one, other = ({text for step, _, text in each if step == 1} for each in by_seed)

    assert len(one & other) < len(one) / 2


def test_a_run_killed_between_two_steps_goes_on_to_the_weights_of_an_uninterrupted_one(
    study_folder: Path, tmp_path: Path, launcher: Launcher
):
    shutil.copytree(study_folder / "before", tmp_path / "results")
    write_study(tmp_path, **VLLM, **SAMPLED)
    layout, arguments = results(tmp_path), ["rl_train", *command(tmp_path, tmp_path / "results")]

    first = launcher.start(arguments, tmp_path / "log")
    wait_until(partial(has_logged, layout, 3), seconds=300)
    first.send(signal.SIGKILL)
    assert first.wait() == -9
    assert launcher.start(arguments, tmp_path / "log").wait() == 0, (tmp_path / "log").read_text()

    uninterrupted = results(study_folder)
    assert [resume["step"] for resume in proof(layout)["resumes"]] == [2]
    assert proof(uninterrupted)["resumes"] == []
    assert completions(layout) == completions(uninterrupted)
    assert timeless_metrics(layout) == timeless_metrics(uninterrupted)
    assert proof(layout)["sha256"] == proof(uninterrupted)["sha256"]


def test_both_engines_answer_alike_for_every_policy(study_folder: Path, tmp_path: Path):
    layout = results(study_folder)
    answers: list[list[list[CompletionRow]]] = []
    for engine in (ENGINE, {"kind": "transformers"}):
        study = load_short(tmp_path, **VLLM | SAMPLED | {"evaluation__engine": engine})
        policies = (only(study, "model"), only(study, "sft"), policy_of(study))
        for policy in policies:
            with vllm_process():
                run_generate(study, layout, policy, "test")
        answers.append([list(read_rows(layout.completions(each.folder, "test"), CompletionRow)) for each in policies])

    for by_vllm, by_transformers in zip(*answers, strict=True):
        greedy = [[each for each in rows if each.mode == "greedy"] for rows in (by_vllm, by_transformers)]
        assert greedy[0] == greedy[1]
        assert len(by_vllm) == len(by_transformers) == 2 * len(greedy[0])


def test_stale_weights_stop_the_run(study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limited = {"rl__engine": {**ENGINE, "max_logp_difference": 0.02}}
    shutil.copytree(study_folder / "before", tmp_path / "results")
    study, sync, calls = load_short(tmp_path, **VLLM | limited), VLLMGeneration.sync_weights, []

    def first_only(generation: Any) -> None:
        calls.append(generation)
        if len(calls) == 1:
            sync(generation)

    monkeypatch.setattr(VLLMGeneration, "sync_weights", first_only)
    with vllm_process(), pytest.raises(SamplerGapError, match="step 2: the log-probs of vLLM and of the trainer"):
        run_rl(study, results(tmp_path), policy_of(study))


def test_replayed_completions_are_no_gap_between_the_engines(study_folder: Path, tmp_path: Path):
    """The policy leaves its earlier completions behind, at a rate of 1e-2 by far more than the limit."""
    edits = {"rl__engine": {**ENGINE, "max_logp_difference": 0.02}, "rl__replay": {"size": 4, "min_mean": -0.75}}
    shutil.copytree(study_folder / "before", tmp_path / "results")
    study = load_short(tmp_path, **VLLM | edits)
    with vllm_process():
        run_rl(study, results(tmp_path), policy_of(study))

    metrics = timeless_metrics(results(tmp_path))
    assert sum(line["replay/replayed_fraction"] for line in metrics) > 0
    assert all(line[SAMPLER_GAP] < BETWEEN_ENGINES for line in metrics)
