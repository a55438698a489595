# pyright: basic
# (accelerate has no types)
"""The baseline of ReMax: the reward of each prompt's greedy completion."""

from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from trl.trainer.grpo_trainer import GRPOTrainer

from rlassay.advantages import in_groups, total_rewards
from rlassay.training.batch import GenerationBatch, GreedyCompletions
from rlassay.training.group_reward import SIGNALS_COLUMN, GroupReward

GREEDY = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": None, "num_beams": 1}
"""Settings of transformers' generation that always take the most likely token."""


def check_greedy(trainer: Any) -> None:
    """Raise ValueError unless the trainer can sample and score one greedy completion per prompt."""
    if trainer.use_vllm or trainer.use_transformers_continuous_batching or trainer.rollout_func is not None:
        raise ValueError("advantage remax: greedy completions are sampled by transformers' generate alone: set neither "
                         "use_vllm nor use_transformers_continuous_batching, and pass no rollout_func")  # fmt: skip
    if trainer.tools or trainer.environment_factories is not None:
        raise ValueError("advantage remax: a greedy completion cannot call tools; pass neither tools nor environments")
    if trainer.multi_objective_aggregation != "sum_then_normalize":
        raise ValueError("advantage remax: multi_objective_aggregation normalize_then_sum has no value for the greedy "
                         "completion, which is no member of the group; set sum_then_normalize")  # fmt: skip
    completions = trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation
    if completions % trainer.num_generations:
        raise ValueError(f"advantage remax: got {completions} completions per process and generation batch, expected "
                         f"whole groups of num_generations, {trainer.num_generations}")  # fmt: skip


def greedy_completions(trainer: Any, batch: GenerationBatch) -> GreedyCompletions:
    """Sample a greedy completion per prompt of the batch, and score it the same way.

    The reward functions see it as a group of one. A reward that cannot score it counts as the mean of the group's
    completions, as for any other completion; TRL's random state and metrics are left unchanged, except `num_tokens`.

    Args:
        trainer: the `CreditGRPOTrainer`, whose attributes have no types.
        batch: with its rewards.
    """
    size = batch.num_generations
    rows = batch.rows[::size]
    greedy = GenerationBatch(rows=rows, is_training=batch.is_training, num_generations=1, step=batch.step)
    greedy.prompts = batch.prompts[::size]
    with _greedy_sampling(trainer, batch.is_training):
        generated: Any = GRPOTrainer._generate(trainer, greedy.prompts)  # TRL's own, as it sampled the batch
    greedy.prompt_tokens, greedy.completion_ids, greedy.tool_mask, greedy.completions, *_, greedy.tool_images = (
        generated
    )
    trainer._xp_measure(greedy)
    batch.seconds["signals"] += greedy.seconds["signals"]
    raw = _scored(trainer, greedy)
    unscored = torch.isnan(raw).all(dim=1)
    is_ours = torch.tensor([isinstance(reward, GroupReward) for reward in trainer.reward_funcs], device=raw.device)
    means = torch.nanmean(in_groups(batch.rewards.raw, size), dim=1)
    filled = torch.where(is_ours & torch.isnan(raw), means, raw)
    totals = total_rewards(filled, batch.rewards.weights, 1, normalize_first=False).masked_fill(unscored, torch.nan)
    tokens: list[int] = gather_object([len(ids) for ids in greedy.completion_ids])
    return GreedyCompletions(
        rewards=totals.repeat_interleave(size),
        token_counts=[count if index == 0 else 0 for count in tokens for index in range(size)],
    )


@contextmanager
def _greedy_sampling(trainer: Any, is_training: bool) -> Generator[None, None, None]:
    """In the body TRL samples greedily and logs only the number of tokens."""
    mode = "train" if is_training else "eval"
    config, kwargs, metrics = trainer.generation_config, trainer.generation_kwargs, trainer._metrics[mode]
    media = trainer.xp_media
    # transformers takes the model's own setting where one of the generation config is the library's default, and TRL
    # writes its sampling settings into the model's, so that both have to say greedy.
    trainer.generation_kwargs = {**kwargs, **GREEDY}
    trainer.generation_config = type(config)(**trainer.generation_kwargs, disable_compile=True)
    trainer._metrics[mode] = defaultdict(list)
    try:
        yield
    finally:
        metrics["num_tokens"] = trainer._metrics[mode]["num_tokens"] or metrics["num_tokens"]
        trainer.generation_config, trainer.generation_kwargs, trainer.xp_media = config, kwargs, media
        trainer._metrics[mode] = metrics


def _scored(trainer: Any, greedy: GenerationBatch) -> torch.Tensor:
    """(N / G, R), rewards of all processes' greedy completions as the functions return them."""
    ours = [reward for reward in trainer.reward_funcs if isinstance(reward, GroupReward)]
    sizes = [reward.num_generations for reward in ours]
    rows = [row | {SIGNALS_COLUMN: signals} for row, signals in zip(greedy.rows, greedy.signals, strict=True)]
    for reward in ours:
        reward.num_generations = 1
    try:
        return GRPOTrainer._calculate_rewards(  # TRL's own, as it scored the batch
            trainer, rows, greedy.prompts, greedy.completions, greedy.completion_ids
        )
    finally:
        for reward, size in zip(ours, sizes, strict=True):
            reward.num_generations = size
        # Reward functions may log through TRL; their logs of greedy completions would enter those of the next batch.
        trainer._pending_extra_logs.clear()
        trainer._pending_metrics.clear()
