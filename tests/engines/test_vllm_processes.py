"""vLLM samples in each of two training processes on CPU."""

from pathlib import Path
from typing import Any

import pytest

from rlassay.models.vllm_engine import SAMPLER_GAP
from tests.engines.vllm_process import needs_vllm
from tests.launcher import Launcher
from tests.training.short_run import RUN, fresh_layout, load_short, rollouts, timeless_metrics
from tests.training.test_shared_jobs import HALF, fork_ranks, layout_of, warm_start

pytestmark = [needs_vllm, pytest.mark.filterwarnings("ignore")]
STEPS = 3
VLLM: dict[str, Any] = HALF | {"rl__engine": {"kind": "vllm", "max_model_length": 128}, "rl__max_steps": STEPS}
BETWEEN_ENGINES = 0.01
"""See test_vllm_study; with the weights of an earlier step it would be above .02."""


def test_each_process_samples_its_own_prompts_from_the_policy_of_every_step(launcher: Launcher, tmp_path: Path):
    study = load_short(tmp_path, **VLLM)
    fresh_layout(tmp_path / "results")
    fork_ranks(launcher, tmp_path, "sft_train", warm_start(study))
    fork_ranks(launcher, tmp_path, "rl_train", RUN)

    metrics = timeless_metrics(layout_of(tmp_path))
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert all(0 < line[SAMPLER_GAP] < BETWEEN_ENGINES for line in metrics)
    assert metrics[-1]["grad_norm"] > 0
    # Four completions of each process: all differ, and so do the processes' prompts.
    first = rollouts(layout_of(tmp_path))[:8]
    assert len({row["completion"] for row in first}) == 8
    assert len({row["prompt_id"] for row in first}) == 2
