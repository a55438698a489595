"""A study's work, estimated from its config: jobs, steps, completions, tokens, disk per stage."""

import re
from dataclasses import dataclass
from pathlib import Path

from rlassay.config.data import Jsonl
from rlassay.config.model import HubModel, ModelConfig, TinyLM, TinySeq2Seq
from rlassay.config.policies import Policy, policies
from rlassay.config.study import Study
from rlassay.config.training import RLConfig

_CHECKPOINTS = 3  # a job keeps two, in case one breaks, and writes the next before it drops the older
_COPIES = 3  # a checkpoint holds the trained weights and AdamW's two moments of each
_BYTES_PER_ROW = 5_000  # a small image fills one block of a file system; its JSON line is short
_BYTES_PER_COMPLETION = 200  # ids, counts and rewards beside the text
_BYTES_PER_TOKEN = 4
# Qwen2.5-1.5B with rank 8 on all linear layers trains 9.2M of its 1.54B parameters.
_LORA_SHARE_PER_RANK = 9.2e6 / 1.54e9 / 8
_BYTES_PER_PARAMETER = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """The work of one stage; None = unknown from the config."""

    stage: str
    """Name of the rule."""
    jobs: int
    """How many jobs."""
    steps: int | None = None
    """Optimiser steps, all jobs together."""
    completions: int | None = None
    """Completions to sample or to imitate, all jobs together."""
    tokens: int | None = None
    """Completion tokens to sample at most, all jobs together."""
    disk: int | None = None
    """Bytes that stay on disk, roughly; checkpoints are gone when their job has finished."""


def estimate_stages(study: Study) -> list[StageEstimate]:
    """One estimate per stage, in the order in which they run."""
    every = list(policies(study).values())
    starts = [policy for policy in every if policy.stage == "sft"]
    runs = [policy for policy in every if policy.stage == "rl"]
    rows = split_rows(study)
    known = [count for count in rows.values() if count is not None]
    data = _BYTES_PER_ROW * sum(known) if len(known) == len(rows) else None
    return [
        StageEstimate(stage="prepare_data", jobs=1, disk=data),
        _sft(starts),
        _rl(study, runs),
        *_evaluation(study, len(every), rows),
        *_curves(study, runs, rows),
        StageEstimate(stage="ablation_report", jobs=1),
    ]


def checkpoint_bytes(study: Study) -> int | None:
    """Bytes that the checkpoints of one training job take at most while it runs; None if a model's size is unknown."""
    sizes = [weight_bytes(arm.recipe.model) for arm in study.arms.values()]
    known = [size for size in sizes if size is not None]
    return _CHECKPOINTS * _COPIES * max(known) if len(known) == len(sizes) else None


def split_rows(study: Study) -> dict[str, int | None]:
    """Rows of each split; None for a split that takes a whole file which is not there to be counted."""
    rows: dict[str, int | None] = dict(study.data.splits)
    if isinstance(study.data, Jsonl):
        for split, limit in study.data.splits.items():
            file = Path(study.data.folder) / f"{split}.jsonl"
            if file.is_file():
                with file.open("rb") as lines:
                    count = sum(1 for _ in lines)
                rows[split] = count if limit is None else min(count, limit)
    return rows


def rollout_completions(rl: RLConfig, processes: int) -> int:
    """Completions that one RL run samples, a batch for every steps_per_generation x num_iterations micro-batches."""
    batches = -(-rl.max_steps * rl.gradient_accumulation_steps // (rl.steps_per_generation * rl.num_iterations))
    return batches * rl.per_device_train_batch_size * rl.steps_per_generation * processes


def parameters(model: ModelConfig) -> int | None:
    """Parameters of a model: computed for a built-in one, else read off its name.

    Such a name is `Qwen2.5-0.5B`. None if unknown.
    """
    if isinstance(model, HubModel):
        size = re.search(r"(\d+(?:\.\d+)?)([bm])\b", model.name.rsplit("/")[-1].lower())
        return round(float(size[1]) * {"b": 1e9, "m": 1e6}[size[2]]) if size else None
    if isinstance(model, TinySeq2Seq):
        return 24 * model.layers * model.width**2 + model.vocab_size * model.width
    language = 13 * model.layers * model.width**2 + model.vocab_size * model.width
    if isinstance(model, TinyLM):
        return language
    vision = 8 * model.vision_layers * model.vision_width**2 + 3 * model.patch_size**2 * model.vision_width
    return language + vision + model.width * (model.vision_width + model.width)


def weight_bytes(model: ModelConfig) -> int | None:
    """Bytes of the weights that training writes: all of them, or the adapters alone; None if unknown."""
    total = parameters(model)
    if total is None:
        return None
    share = 1.0 if model.lora is None else min(1.0, _LORA_SHARE_PER_RANK * model.lora.r)
    return round(total * share * (_BYTES_PER_PARAMETER[model.dtype] if isinstance(model, HubModel) else 4))


def _sft(starts: list[Policy]) -> StageEstimate:
    sections = [start.recipe.sft for start in starts if start.recipe.sft is not None]
    return StageEstimate(
        stage="sft_train",
        jobs=len(sections),
        steps=sum(sft.max_steps for sft in sections),
        completions=sum(
            sft.max_steps * sft.per_device_train_batch_size * sft.gradient_accumulation_steps for sft in sections
        ),
        disk=_training_disk(starts),
    )


def _rl(study: Study, runs: list[Policy]) -> StageEstimate:
    sampled = [
        (rollout_completions(run.recipe.rl, study.num_processes), run.recipe.rl.max_completion_length) for run in runs
    ]
    tokens = sum(completions * length for completions, length in sampled)
    completions = sum(completions for completions, _ in sampled)
    weights = _training_disk(runs)
    return StageEstimate(
        stage="rl_train",
        jobs=len(runs),
        steps=sum(run.recipe.rl.max_steps for run in runs),
        completions=completions,
        tokens=tokens,
        disk=None if weights is None else weights + _text_disk(completions, tokens),
    )


def _evaluation(study: Study, num_policies: int, rows: dict[str, int | None]) -> list[StageEstimate]:
    evaluation = study.evaluation
    jobs = num_policies * len(evaluation.sets)
    counts = [rows[name] for name in evaluation.sets]
    prompts = [count for count in counts if count is not None]
    if len(prompts) < len(counts):
        return [StageEstimate(stage=stage, jobs=jobs) for stage in ("generate", "score")]
    completions = num_policies * sum(prompts) * sum(evaluation.modes.values())
    tokens = completions * evaluation.max_completion_length
    answers = _text_disk(completions, tokens)
    return [
        StageEstimate(stage="generate", jobs=jobs, completions=completions, tokens=tokens, disk=answers),
        StageEstimate(stage="score", jobs=jobs, completions=completions, disk=_BYTES_PER_COMPLETION * completions),
    ]


def _curves(study: Study, runs: list[Policy], rows: dict[str, int | None]) -> list[StageEstimate]:
    """The held-out curves: a point every so many steps of each run."""
    split = study.curve_set
    if split is None:
        return []
    points = sum(len(study.curve_points(run.recipe.rl.max_steps)) for run in runs)
    prompts = rows[split]
    if prompts is None:
        return [StageEstimate(stage="held_out_curve", jobs=len(runs))]
    completions = points * prompts * sum(study.evaluation.modes.values())
    tokens = completions * study.evaluation.max_completion_length
    disk = _text_disk(completions, tokens) + _BYTES_PER_COMPLETION * completions
    return [StageEstimate(stage="held_out_curve", jobs=len(runs), completions=completions, tokens=tokens, disk=disk)]


def _training_disk(trained: list[Policy]) -> int | None:
    sizes = [weight_bytes(policy.recipe.model) for policy in trained]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _text_disk(completions: int, tokens: int) -> int:
    return _BYTES_PER_COMPLETION * completions + _BYTES_PER_TOKEN * tokens
