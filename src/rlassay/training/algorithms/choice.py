"""Choose the completions that train: dynamic sampling, replay, then a part of each group."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages import estimate, in_groups, reads, total_rewards
from rlassay.training.algorithms.advantages import estimator_of_trl
from rlassay.training.algorithms.dynamic_sampling import DynamicSampling, PromptStream, fill, worth_training
from rlassay.training.algorithms.groups import ChosenGroups, SampledGroup
from rlassay.training.algorithms.replay import Replay, ReplayBuffer, admits
from rlassay.training.algorithms.sampling import gathered, repeated, sample
from rlassay.training.algorithms.subset import keep_rows, subset_mask
from rlassay.training.batch import GenerationBatch, completion_text, own_rows
from rlassay.training.rollouts import Rollout

STATE = "groups.pt"
"""File of a checkpoint with the stream of prompts and the replay buffer."""


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Options of the choice; by default all sampled completions train, as in TRL."""

    dynamic_sampling: DynamicSampling | None = None
    """Replace groups that teach nothing by groups of other prompts."""
    replay: Replay | None = None
    """Replace groups that teach nothing by earlier groups."""
    train_on: int | None = None
    """Completions of each group that train, those whose total rewards vary most; None trains on all."""

    def __post_init__(self) -> None:
        """Raise ValueError for options that exclude each other."""
        if self.replay is not None and self.train_on is not None:
            raise ValueError(
                "groups: got replay and train_on; a replayed group keeps the advantages that it had as a whole group, "
                "so leave one of them out"
            )


class GroupChooser:
    """Chooses the completions that train; the trainer calls one method per step of a generation batch."""

    def __init__(self, plan: GroupPlan) -> None:
        self.plan = plan
        self.stream: PromptStream | None = None
        self.buffer: ReplayBuffer | None = None
        self.on = plan != GroupPlan()

    def prepare(self, trainer: Any) -> None:
        """Check the plan against the trainer's settings; ValueError for a conflict."""
        plan = self.plan
        if plan.train_on is not None:
            _check_train_on(trainer, plan.train_on)
        if plan.replay is not None or plan.train_on is not None:
            _check_estimator(trainer, "replay" if plan.train_on is None else "train_on")
        if plan.dynamic_sampling is None and plan.replay is None:
            return
        _check_sampling(trainer)
        if plan.replay is not None:
            self.buffer = ReplayBuffer(plan.replay, trainer.args.seed)
        if plan.dynamic_sampling is not None:
            _check_dynamic_sampling(trainer, plan.dynamic_sampling)
            self.stream = PromptStream(trainer.train_dataset, trainer.args.seed, plan.dynamic_sampling.revisit)

    def choose(self, trainer: Any, batch: GenerationBatch) -> list[dict[str, Any]]:
        """The dataset rows that TRL receives, one per completion; `batch.chosen` gets their completions.

        Without dynamic sampling and replay these are the given rows, for which TRL samples as usual.
        """
        if not batch.is_training or (self.stream is None and self.buffer is None):
            return batch.rows
        own = len(batch.rows) // batch.num_generations
        first = own * trainer.accelerator.process_index
        groups, dropped, metrics = self._sampled(trainer, batch)
        tokens = sum(group.num_tokens for group in (*groups, *dropped))
        metrics |= {"sampled_completions": float((len(groups) + len(dropped)) * batch.num_generations)}
        chosen = ChosenGroups(
            groups=groups,
            replayed=[False] * len(groups),
            own=slice(first, first + own),
            dropped=dropped,
            names=trainer.reward_func_names,
            weights=trainer.reward_weights,
            metrics=metrics | {"sampled_tokens": float(tokens)},
        )
        if self.buffer is not None:
            self._replay(self.buffer, trainer, chosen)
        batch.chosen = chosen
        batch.rows = repeated(groups[chosen.own])
        trainer.xp_batch = batch
        return batch.rows

    def _sampled(
        self, trainer: Any, batch: GenerationBatch
    ) -> tuple[list[SampledGroup], list[SampledGroup], dict[str, float]]:
        """The groups of the batch, the groups that dynamic sampling drops, and its metrics."""
        stream, options = self.stream, self.plan.dynamic_sampling
        if stream is None or options is None:
            return sample(trainer, batch.rows, batch.seconds), [], {}
        size, taken = batch.num_generations, set[str]()
        accelerator = trainer.accelerator

        def keep(groups: Sequence[SampledGroup]) -> list[bool]:
            kept = _worth_training(trainer, groups, options)
            for group, good in zip(groups, kept, strict=True):
                stream.record(group.prompt_id, kept=good)
            taken.update(group.prompt_id for group in groups)
            return kept

        def resample(missing: int) -> list[SampledGroup]:
            own = -(-missing // accelerator.num_processes)  # every process samples as many
            rows = stream.take(own * accelerator.num_processes, taken)
            mine = rows[own * accelerator.process_index :][:own]
            return sample(trainer, [row for row in mine for _ in range(size)], batch.seconds)

        rows = self._first_rows(stream, batch, taken, accelerator)
        filled = fill(sample(trainer, rows, batch.seconds), keep, resample, options.max_resample)
        sampled = len(filled.groups) + len(filled.dropped)
        metrics = {
            "dynamic_sampling/rounds": float(filled.rounds),
            "dynamic_sampling/sampled_groups": float(sampled),
            "dynamic_sampling/kept_fraction": 1 - (len(filled.dropped) + filled.unfilled) / sampled,
            "dynamic_sampling/unfilled_groups": float(filled.unfilled),
            "dynamic_sampling/dropped_tokens": float(sum(group.num_tokens for group in filled.dropped)),
        }
        return filled.groups, filled.dropped, metrics

    def _first_rows(
        self, stream: PromptStream, batch: GenerationBatch, taken: set[str], accelerator: Any
    ) -> list[dict[str, Any]]:
        """The rows of the batch, with other prompts in place of those that `revisit` skips."""
        if stream.revisit == 1:
            return batch.rows
        size = batch.num_generations
        ids: list[str] = gathered(batch.prompt_ids[::size])
        accepted = [stream.accepts(prompt_id) for prompt_id in ids]
        taken.update(ids)
        others = stream.take(accepted.count(False), taken)
        own = len(batch.rows) // size
        rows: list[dict[str, Any]] = []
        for index, good in enumerate(accepted):
            row = None if good else others.pop(0)
            place = index - own * accelerator.process_index
            if 0 <= place < own:
                rows += batch.rows[place * size : (place + 1) * size] if row is None else [row] * size
        return rows

    def _replay(self, buffer: ReplayBuffer, trainer: Any, chosen: ChosenGroups) -> None:
        """Add groups with varying rewards to the buffer, and replace others by its groups."""
        groups = chosen.groups
        size = len(groups[0].completion_ids)
        rewards = torch.cat([group.rewards_per_func for group in groups])
        totals = in_groups(_totals(trainer, rewards, chosen.weights.cpu(), size), size)
        advantages = in_groups(advantages_of(trainer, rewards, chosen.weights.cpu(), size), size)
        places: list[int] = []
        for index, group in enumerate(groups):
            if admits(buffer.options, totals[index]):
                buffer.push(group, totals[index], advantages[index])
            else:
                places.append(index)
        drawn = buffer.replacements(len(places))
        for place, group in zip(places, drawn, strict=False):  # an empty buffer gives none
            chosen.dropped.append(groups[place])
            groups[place] = group
            chosen.replayed[place] = True
        chosen.metrics["replay/replayed_fraction"] = len(drawn) / len(groups)
        chosen.metrics["replay/size"] = float(len(buffer.entries))

    def settle(self, trainer: Any, batch: GenerationBatch, output: dict[str, Any]) -> None:
        """Before credit: restore the advantages of replayed groups, and select the completions that train."""
        if not batch.is_training:
            return
        # A critic computes new values for the tokens of a replayed group, as for those of any other.
        if batch.chosen is not None and any(batch.chosen.replayed) and trainer.xp_advantages.critic is None:
            output["advantages"] = batch.advantages_B = _with_own_advantages(batch, batch.chosen)
        if self.plan.train_on is not None:
            rewards, size = batch.rewards, batch.num_generations
            totals = rewards.totals(trainer.multi_objective_aggregation)
            batch.trained = subset_mask(totals, size, self.plan.train_on)
            chosen = advantages_of(
                trainer, rewards.rewards_per_func[batch.trained], rewards.weights, self.plan.train_on
            )
            advantages = torch.zeros_like(totals).masked_scatter(batch.trained, chosen)
            output["advantages"] = batch.advantages_B = own_rows(trainer.accelerator, advantages, len(batch.rows))
            own = own_rows(trainer.accelerator, batch.trained, len(batch.rows))
            batch.completion_mask = batch.completion_mask * own[:, None]

    def reduce(self, trainer: Any, batch: GenerationBatch, output: dict[str, Any]) -> dict[str, Any]:
        """After credit: reduce the output to the completions that train, and count their tokens."""
        if batch.trained is None:
            return output
        own = own_rows(trainer.accelerator, batch.trained, len(batch.rows))
        counted = trainer.accelerator.gather(batch.completion_mask.sum()).sum()
        return keep_rows(output, own) | {"num_items_in_batch": counted}

    def use(self, batch: GenerationBatch) -> list[str] | None:
        """`trained`, `dropped` or `replayed` for each of the N completions; None if all sampled ones always train."""
        if not self.on:
            return None
        count, size = len(batch.rewards.raw), batch.num_generations
        if batch.trained is not None:
            return ["trained" if bool(each) else "dropped" for each in batch.trained]
        replayed = batch.chosen.replayed if batch.chosen is not None else [False] * (count // size)
        return ["replayed" if each else "trained" for each in replayed for _ in range(size)]

    def metrics(self, batch: GenerationBatch) -> dict[str, float]:
        """Values to log."""
        if batch.chosen is not None:
            return batch.chosen.metrics
        if batch.trained is None:
            return {}
        return {"trained_fraction": batch.trained.float().mean().item()}

    def save(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint."""
        state = {
            name: part.state() for name, part in (("stream", self.stream), ("buffer", self.buffer)) if part is not None
        }
        if state:
            torch.save(state, checkpoint / STATE)

    def load(self, checkpoint: Path) -> None:
        """Read the state from a checkpoint; ValueError if it has none."""
        parts = {"stream": self.stream, "buffer": self.buffer}
        wanted = {name: part for name, part in parts.items() if part is not None}
        if not wanted:
            return
        if not (checkpoint / STATE).exists():
            raise ValueError(f"{checkpoint} has no {STATE}: it was written without dynamic sampling or replay")
        # Our own file: rows and images are no tensors, which the safe loader refuses.
        state: dict[str, Any] = torch.load(checkpoint / STATE, weights_only=False)
        for name, part in wanted.items():
            part.restore(state[name])


def advantages_of(
    trainer: Any,
    rewards_per_func: Float[Tensor, "batch rewards"],
    weights: Float[Tensor, "rewards"],
    num_generations: int,
) -> Float[Tensor, "batch"]:
    """Advantages as the trainer computes them, for any completions, not only a generation batch."""
    totals = _totals(trainer, rewards_per_func, weights, num_generations)
    if trainer.xp_advantages.estimator is not None:
        return estimate(trainer.xp_advantages.estimator, totals, num_generations)
    return estimator_of_trl(trainer)(totals, num_generations)


def dropped_rollout(batch: GenerationBatch, like: Rollout, end_token_ids: Sequence[int]) -> Rollout | None:
    """The record of the sampled groups that do not train; None without any."""
    if batch.chosen is None or not batch.chosen.dropped:
        return None
    groups = batch.chosen.dropped
    raw = torch.cat([group.raw for group in groups])
    ids = [each for group in groups for each in group.completion_ids]
    return Rollout(
        step=batch.step,
        num_generations=batch.num_generations,
        prompt_ids=[group.prompt_id for group in groups for _ in group.completion_ids],
        completions=[completion_text(each) for group in groups for each in group.completions],
        token_counts=[len(each) for each in ids],
        finished=[each[-1] in end_token_ids for each in ids],
        reward_names=like.reward_names,
        raw=raw,
        weighted=torch.cat([group.rewards_per_func for group in groups]) * batch.chosen.weights.cpu(),
        advantages=torch.zeros(len(ids)),
        failed={name: [kind for group in groups for kind in group.failed[name]] for name in groups[0].failed},
        use=["dropped"] * len(ids),
    )


def _totals(trainer: Any, rewards_per_func: Tensor, weights: Tensor, num_generations: int) -> Tensor:
    normalize_first = trainer.multi_objective_aggregation == "normalize_then_sum"
    return total_rewards(rewards_per_func, weights, num_generations, normalize_first=normalize_first)


def _worth_training(trainer: Any, groups: Sequence[SampledGroup], options: DynamicSampling) -> list[bool]:
    size = len(groups[0].completion_ids)
    rewards = torch.cat([group.rewards_per_func for group in groups])
    totals = _totals(trainer, rewards, trainer.reward_weights.cpu(), size)
    filtered = None
    if options.filter_reward is not None:
        raw = torch.cat([group.raw for group in groups])
        filtered = raw[:, trainer.reward_func_names.index(options.filter_reward)]
    return [bool(each) for each in worth_training(totals, size, filtered, (options.filter_low, options.filter_high))]


def _with_own_advantages(batch: GenerationBatch, chosen: ChosenGroups) -> Float[Tensor, "batch"]:
    rows: list[Tensor] = []
    given = in_groups(batch.advantages_B, batch.num_generations)
    for index, group in enumerate(chosen.groups[chosen.own]):
        own = group.advantages_G if chosen.replayed[chosen.own][index] else None
        rows.append(given[index] if own is None else own.to(given[index]))
    return torch.cat(rows)


def _check_estimator(trainer: Any, option: str) -> None:
    """Raise ValueError for estimators that need more than the rewards of the chosen groups."""
    further = sorted(reads(trainer.xp_advantages.estimator) - {"num_generations"})
    if further:
        raise ValueError(
            f"groups: got {option} beside an advantage estimator that reads {further[0]}, expected one that reads "
            "rewards alone, such as grpo or rloo; leave one of them out"
        )
    kl, has_critic = trainer.xp_kl, trainer.xp_advantages.critic is not None
    if kl is not None and kl.where == "reward" and not has_critic:
        raise ValueError(
            f"groups: got {option} beside kl in the reward, expected kl in the loss: the advantages of chosen "
            "completions are made from rewards without a penalty"
        )
    if option == "train_on" and has_critic:
        raise ValueError("groups: got train_on beside a critic, whose advantages are per token; leave one of them out")


def _check_train_on(trainer: Any, count: int) -> None:
    """The completions that train must fill micro-batches."""
    size, args = trainer.num_generations, trainer.args
    if not 1 < count <= size:
        raise ValueError(f"train_on: got {count}, expected 2 to {size}, the completions of a group (num_generations)")
    sampled = args.per_device_train_batch_size * args.steps_per_generation
    _check_whole_groups(sampled, size)
    if (sampled // size * count) % args.steps_per_generation:
        raise ValueError(
            f"train_on: {count} of {size} of the {sampled} completions of a process are {sampled // size * count}, "
            f"which do not divide into {args.steps_per_generation} micro-batches (steps_per_generation)"
        )


def _check_sampling(trainer: Any) -> None:
    """Raise ValueError unless groups can move between processes and steps, as plain sampling allows."""
    if trainer.rollout_func is not None or trainer.tools or trainer.environment_factories is not None:
        raise ValueError("groups: dynamic sampling and replay work without rollout_func, tools and environments only")
    _check_whole_groups(
        trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation, trainer.num_generations
    )


def _check_whole_groups(sampled: int, size: int) -> None:
    if sampled % size:
        raise ValueError(
            f"per_device_train_batch_size x steps_per_generation: got {sampled} completions per process, expected "
            f"whole groups of num_generations {size}"
        )


def _check_dynamic_sampling(trainer: Any, options: DynamicSampling) -> None:
    if not hasattr(trainer.train_dataset, "__len__"):
        raise ValueError("dynamic_sampling: got an iterable train_dataset, expected one with rows by index")
    name, known = options.filter_reward, trainer.reward_func_names
    if name is not None and name not in known:
        raise ValueError(f"dynamic_sampling.filter_reward: got {name!r}, expected one of {', '.join(known)}")
