"""vLLM samples in each of two processes on CPU, which share the policy by any strategy."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.models.vllm_engine import SAMPLER_GAP
from tests.engines.vllm_process import needs_vllm
from tests.launcher import Launcher
from tests.training.short_run import RUN, SHORT, fresh_layout, load_short, rollouts, timeless_metrics
from tests.training.test_shared_jobs import HALF, fork_ranks, layout_of, warm_start, weights_of
from tests.training.test_strategies import check_resumed, trained

pytestmark = [needs_vllm, pytest.mark.filterwarnings("ignore")]
STEPS = 3
VLLM: dict[str, Any] = HALF | {"rl__engine": {"kind": "vllm", "max_model_length": 128}, "rl__max_steps": STEPS}
TWO_HEADS: dict[str, Any] = {"model": SHORT["model"] | {"width": 64, "vision_width": 32}}
"""Heads are what two processes divide; the model of the short run has one."""
BETWEEN_ENGINES = 0.01
"""See test_vllm_study; with the weights of an earlier step it would be above .02."""


@pytest.fixture(scope="module")
def warm(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a warm start."""
    folder = tmp_path_factory.mktemp("warm")
    study = load_short(folder, **VLLM)
    fresh_layout(folder / "results")
    fork_ranks(launcher, folder, "sft_train", warm_start(study))
    return folder / "results"


@pytest.fixture(scope="module")
def whole(warm: Path, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose processes have the whole policy each."""
    return sampled(launcher, warm, tmp_path_factory.mktemp("whole"), "ddp")


def sampled(launcher: Launcher, warm: Path, folder: Path, strategy: str) -> Path:
    """The folder, with a run in it."""
    before, study = load_short(folder, **VLLM), load_short(folder, **VLLM, strategy=strategy)
    shutil.copytree(warm, folder / "results")
    if strategy != "ddp":  # the warm start of another strategy has another name
        root = layout_of(folder).root
        (root / warm_start(before)).rename(root / warm_start(study))
    fork_ranks(launcher, folder, "rl_train", RUN)
    return folder


def test_each_process_samples_its_own_prompts_from_the_policy_of_every_step(whole: Path):
    metrics = timeless_metrics(layout_of(whole))
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert all(0 < line[SAMPLER_GAP] < BETWEEN_ENGINES for line in metrics)
    assert metrics[-1]["grad_norm"] > 0
    # Four completions of each process: all differ, and so do the processes' prompts.
    first = rollouts(layout_of(whole))[:8]
    assert len({row["completion"] for row in first}) == 8
    assert len({row["prompt_id"] for row in first}) == 2


@pytest.mark.parametrize("strategy", ["fsdp2", "deepspeed_zero2", "deepspeed_zero3"])
def test_vllm_gets_the_whole_weights_of_a_divided_policy(
    strategy: str, whole: Path, warm: Path, launcher: Launcher, tmp_path: Path
):
    if strategy.startswith("deepspeed") and find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: make .venv-vllm, then make test")
    divided = sampled(launcher, warm, tmp_path, strategy)
    ours, theirs = (timeless_metrics(layout_of(each)) for each in (divided, whole))
    for line, other in zip(ours, theirs, strict=True):
        assert line[SAMPLER_GAP] == pytest.approx(other[SAMPLER_GAP], abs=1e-5)
    assert [row["completion"] for row in rollouts(layout_of(divided))] == [
        row["completion"] for row in rollouts(layout_of(whole))
    ]
    weights = [weights_of(layout_of(each), RUN, "rl") for each in (divided, whole)]
    for name, values in weights[1].items():
        if not name.endswith("k_proj.bias"):  # its gradient is rounding error, of which AdamW makes whole steps
            torch.testing.assert_close(weights[0][name], values, rtol=1e-3, atol=1e-3, msg=name)


def test_a_killed_rank_ends_the_job_which_resumes_exactly(launcher: Launcher, tmp_path: Path):
    edits = VLLM | {"rl__max_steps": 6, "strategy": "ddp"}
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    undisturbed = trained(launcher, tmp_path / "undisturbed", edits)
    check_resumed(launcher, *undisturbed, tmp_path / "killed", edits)
    gaps = [line[SAMPLER_GAP] for line in timeless_metrics(layout_of(tmp_path / "killed"))]
    assert len(gaps) == 6
    assert max(gaps) < BETWEEN_ENGINES


def test_two_processes_share_one_copy_and_train_on_completions_of_their_own_prompts(launcher: Launcher, tmp_path: Path):
    engine = VLLM["rl__engine"] | {"tensor_parallel_size": 2}
    study = load_short(tmp_path, **VLLM | TWO_HEADS | {"rl__engine": engine})
    fresh_layout(tmp_path / "results")
    for stage, policy in (("sft_train", warm_start(study)), ("rl_train", RUN)):
        fork_ranks(launcher, tmp_path, stage, policy)
    metrics = timeless_metrics(layout_of(tmp_path))
    assert len(metrics) == STEPS
    assert all(0 < line[SAMPLER_GAP] < BETWEEN_ENGINES for line in metrics)
    first = rollouts(layout_of(tmp_path))[:8]
    assert [row["sample"] for row in first] == [0, 1, 2, 3] * 2
    assert len({row["prompt_id"] for row in first}) == 2
    assert len({row["completion"] for row in first}) == 8
    # Their vLLM makes no shared memory, whose name another job of this machine would meet.
    assert not list(Path("/dev/shm").glob("-tp:0-*"))
