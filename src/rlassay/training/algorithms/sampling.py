# pyright: basic
# (accelerate has no types)
"""Sample groups through the trainer, and convert them to forms of TRL and trainer."""

from collections.abc import Sequence
from math import nan
from typing import Any

import torch
from accelerate.utils import gather_object
from trl.data_utils import prepare_multimodal_messages

from rlassay.training.algorithms.groups import ChosenGroups, SampledGroup
from rlassay.training.batch import BatchRewards, GenerationBatch, images_of, prompt_key


def sample(trainer: Any, rows: Sequence[dict[str, Any]], seconds: dict[str, float]) -> list[SampledGroup]:
    """Sample and score completions of prompts, and share the groups of all processes.

    Args:
        trainer: `CreditGRPOTrainer`, which has no types.
        rows: dataset rows of this process's prompts, one per completion, those of a prompt side by side; as many on
            every process.
        seconds: the time of `reward` and `signals` is added to it.
    """
    size = trainer.num_generations
    step = trainer.state.global_step + 1
    batch = GenerationBatch(rows=list(rows), is_training=True, num_generations=size, step=step)
    trainer.xp_batch = batch
    prompts = trl_prompts(rows)
    _, batch.completion_ids, _, batch.completions, logps, *_ = trainer._generate(prompts)
    batch.prompts = prompts
    if trainer.xp_signal_plan.attention:  # the only signals that rewards can read
        trainer._xp_measure(batch)
    else:
        batch.signals = [{} for _ in rows]
    trainer._xp_reward(batch)
    for name, value in batch.seconds.items():
        seconds[name] = seconds.get(name, 0.0) + value
    # A user's columns for TRL's table of completions would have more rows than the batch.
    trainer._pending_extra_logs.clear()
    return gather_object(_groups(batch, logps, trainer.accelerator.process_index))


def _groups(batch: GenerationBatch, logps: list[list[float]] | None, process: int) -> list[SampledGroup]:
    """The groups of this process.

    Its first row among those of all processes is `process * len(batch.rows)`.
    """
    size, rewards = batch.num_generations, batch.rewards
    groups: list[SampledGroup] = []
    for first in range(0, len(batch.rows), size):
        own = slice(first, first + size)
        among_all = slice(process * len(batch.rows) + first, process * len(batch.rows) + first + size)
        groups.append(
            SampledGroup(
                row=batch.rows[first],
                prompt_id=prompt_key(batch.rows[first]),
                prompt_tokens=batch.prompt_tokens[own],
                completions=batch.completions[own],
                completion_ids=batch.completion_ids[own],
                sampling_logps=None if logps is None else logps[own],
                raw=rewards.raw[among_all].cpu(),
                rewards_per_func=rewards.rewards_per_func[among_all].cpu(),
                failed={name: kinds[among_all] for name, kinds in rewards.failed.items()},
                metrics={name: each[among_all] for name, each in rewards.metrics.items()},
            )
        )
    return groups


def trl_prompts(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """The prompts of rows as TRL passes them to `_generate`: with their images inside."""
    prompts: list[Any] = [row["prompt"] for row in rows]
    if "images" in rows[0]:
        images = [row["images"] for row in rows]
    elif "image" in rows[0]:
        images = [[] if row["image"] is None else [row["image"]] for row in rows]
    else:
        return prompts
    if not any(images):
        return prompts
    return [prepare_multimodal_messages(prompt, images=own) for prompt, own in zip(prompts, images, strict=True)]


def repeated(groups: Sequence[SampledGroup]) -> list[dict[str, Any]]:
    """The row of each completion of the groups."""
    return [group.row for group in groups for _ in group.completion_ids]


def gathered(values: list[Any]) -> list[Any]:
    """The lists of all processes, one after the other."""
    return gather_object(values)


def generated(chosen: ChosenGroups, prompts: list[Any], *, with_images: bool = True) -> tuple[Any, ...]:
    """The return value of TRL's `_generate` for the completions of this process; `prompts` are theirs, with images.

    Without `with_images`, because there are clips too, it leaves the images to `VideoTrainer`.

    A replayed completion has log-probabilities of NaN, for which TRL takes a ratio of 1 and no gap: those of its
    sampler belong to an earlier policy, whose distance from the current policy is not a gap between engines.
    """
    groups = chosen.groups[chosen.own]
    images = [images_of(prompt) or None for prompt in prompts] if with_images else []
    logps: list[list[float]] | None = None
    if groups[0].sampling_logps is not None:
        logps = [
            [nan] * len(each) if replayed else each
            for group, replayed in zip(groups, chosen.replayed[chosen.own], strict=True)
            for each in group.sampling_logps or []
        ]
    return (
        [ids for group in groups for ids in group.prompt_tokens],
        [ids for group in groups for ids in group.completion_ids],
        None,
        [completion for group in groups for completion in group.completions],
        logps,
        {},
        images if any(images) else None,
        [],
    )


def rewards_of(chosen: ChosenGroups, device: torch.device) -> BatchRewards:
    """The rewards of the N completions."""
    groups = chosen.groups
    names = groups[0].failed
    return BatchRewards(
        names=chosen.names,
        raw=torch.cat([group.raw for group in groups]).to(device),
        rewards_per_func=torch.cat([group.rewards_per_func for group in groups]).to(device),
        weights=chosen.weights.to(device),
        failed={name: [kind for group in groups for kind in group.failed[name]] for name in names},
        metrics={name: [each for group in groups for each in group.metrics[name]] for name in names},
        num_generations=len(groups[0].completion_ids),
    )
