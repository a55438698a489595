# pyright: basic
# (TRL leaves most attributes of a trainer open)
"""Micro-batches by token budget: completions of similar length share a forward pass, to reduce padding.

TRL pads each micro-batch to the longest prompt and completion of the whole generation batch. Here the completions of an
optimiser step are sorted by length and cut into micro-batches of limited tokens, each padded to its own longest. TRL's
losses of these are weighted so that their sum equals its loss of the original micro-batches.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from rlassay.training.batch import IMAGE_INPUTS, SPLIT_BY
from rlassay.training.video import VideoTrainer

Lengths = tuple[int, int]
"""Tokens of a prompt and of its completion."""
Loss = Callable[[Any, dict[str, Any]], Tensor]

BY_POSITION = ("token_type_ids", "mm_token_type_ids")
"""Inputs with a value per position of prompt and completion."""
PER_TOKEN = ("bnpo",)
"""Loss types that average over the tokens of a micro-batch."""
SUMMED = ("dapo", "cispo", "vespo")
"""Loss types that divide by the generation batch's tokens, so that micro-batch losses add up."""


def padded_tokens(lengths: Sequence[Lengths]) -> int:
    """Tokens of a micro-batch, padding included."""
    return len(lengths) * (max(prompt for prompt, _ in lengths) + max(completion for _, completion in lengths))


def packed(lengths: Sequence[Lengths], budget: int) -> list[list[int]]:
    """Indices of completions by micro-batch, shortest first, each of at most `budget` tokens after padding.

    A completion with more tokens than that is a micro-batch of its own.
    """
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda each: (sum(lengths[each]), each)):
        joined = [*parts[-1], index] if parts else [index]
        if parts and padded_tokens([lengths[each] for each in joined]) <= budget:
            parts[-1] = joined
        else:
            parts.append([index])
    return parts


def divided(parts: Sequence[list[int]], count: int, lengths: Sequence[Lengths]) -> list[list[int]]:
    """`count` micro-batches, by halving those with most tokens.

    The processes of a step need equally many.

    Errors: ValueError for more micro-batches than completions.
    """
    made = list(parts)
    while len(made) < count:
        several = [place for place, part in enumerate(made) if len(part) > 1]
        if not several:
            raise ValueError(f"count: got {count}, but there are {len(made)} completions to divide")
        largest = max(several, key=lambda place: padded_tokens([lengths[each] for each in made[place]]))
        part = made[largest]
        made[largest : largest + 1] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return made


class Pool:
    """Completions of one generation batch that a process trains on together."""

    def __init__(self, slices: Sequence[Mapping[str, Any]]) -> None:
        """Args: slices: inputs of TRL's loss, of one generation batch, padded to equal widths."""
        split: list[dict[str, Any]] = [split_pixel_values_by_grid(dict(each)) for each in slices]
        self.inputs: dict[str, Any] = {name: _joined([each[name] for each in split]) for name in split[0]}
        self.prompt_width = self.inputs["prompt_ids"].shape[1]
        self.completion_width = self.inputs["completion_ids"].shape[1]
        prompts, completions = (
            _lengths(mask) for mask in (self.inputs["prompt_mask"].flip(1), self.inputs["completion_mask"])
        )
        # Two columns at least, since TRL takes metrics of one column for those of whole completions.
        shortest = min(2, self.completion_width)
        self.lengths: list[Lengths] = [
            (prompt, max(completion, shortest)) for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def take(self, rows: Sequence[int]) -> dict[str, Any]:
        """The inputs of some completions, padded to the longest among them."""
        prompt = max(self.lengths[row][0] for row in rows)
        completion = max(self.lengths[row][1] for row in rows)
        taken = {name: self._taken(name, value, rows, prompt, completion) for name, value in self.inputs.items()}
        return unsplit_pixel_values_by_grid(taken)

    def _taken(self, name: str, value: Any, rows: Sequence[int], prompt: int, completion: int) -> Any:
        """Rows of one input, without the padding beyond so many tokens of prompt and completion."""
        if isinstance(value, list):
            return [value[row] for row in rows]
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        chosen, start = value[torch.tensor(rows, device=value.device)], self.prompt_width - prompt
        if name in ("prompt_ids", "prompt_mask"):
            return chosen[:, start:]
        if name in BY_POSITION:
            return chosen[:, start : self.prompt_width + completion]
        per_token = value.ndim == 2 and value.shape[1] == self.completion_width and name not in _OF_IMAGES
        return chosen[:, :completion] if per_token else chosen


_OF_IMAGES = {*IMAGE_INPUTS, *SPLIT_BY} - set(BY_POSITION)


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, list):
        return [each for value in values for each in value]
    return torch.cat(values) if isinstance(first, Tensor) and first.ndim else first


def _lengths(mask: Tensor) -> list[int]:
    """Position after the last 1 of each row, at least 1."""
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask.bool() * positions).amax(dim=1).clamp(min=1).tolist()


class TokenBudget:
    """Trains on each optimiser step's completions in micro-batches of at most so many tokens."""

    def __init__(self, budget: int) -> None:
        """
        Args:
            budget: most tokens of a micro-batch, padding included.

        Errors: ValueError for a budget below 1.
        """
        if budget < 1:
            raise ValueError(f"max_tokens_per_micro_batch: got {budget}, expected at least 1")
        self.budget = budget
        self._slices: list[dict[str, Any]] = []

    def check(self, trainer: Any) -> None:
        """Refuse losses that need all completions of a micro-batch of TRL's at once."""
        unfit = {
            "top_entropy_quantile below 1": trainer.top_entropy_quantile < 1,
            "use_adaptive_entropy": trainer.use_adaptive_entropy,
            "output_router_logits": trainer.aux_loss_enabled,
        }
        if refused := [name for name, is_set in unfit.items() if is_set]:
            raise ValueError(
                f"max_tokens_per_micro_batch beside {', '.join(refused)}: these depend on which completions share a "
                "micro-batch; leave one of them out"
            )

    def loss(self, trainer: Any, trl_loss: Loss, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The loss of a micro-batch of TRL's, computed in parts.

        For all but the last part, the backward pass is run here. If the loss does not depend on the grouping of
        completions, those of a whole optimiser step are pooled: the loss is 0 until its last micro-batch.
        """
        self._slices.append(inputs)
        is_last: bool = trainer.accelerator.sync_gradients
        if self._pools_steps(trainer) and not is_last:
            return torch.zeros((), device=inputs["completion_ids"].device, requires_grad=True)
        slices, self._slices = self._slices, []
        pool = Pool(slices)
        parts = self._parts(trainer, pool)
        shares = _Shares(trainer, pool, parts, len(slices))
        accelerator, metrics = trainer.accelerator, trainer._metrics
        before, seen = metrics["train"], list[dict[str, list[float]]]()
        coefficient = trainer.entropy_coef
        done = torch.zeros((), device=inputs["completion_ids"].device)
        loss = done
        for number, rows in enumerate(parts):
            ends = number + 1 == len(parts)
            metrics["train"] = defaultdict(list)
            trainer.entropy_coef = coefficient * shares.of_entropy(number)
            accelerator.gradient_state._set_sync_gradients(is_last and ends)
            with _uneven_gather(accelerator), nullcontext() if ends else accelerator.no_sync(model):
                loss = trl_loss(model, pool.take(rows)) * shares.of_loss(number)
                if not ends:
                    _backward(accelerator, loss)
                    done += loss.detach()
            seen.append(metrics["train"])
        metrics["train"], trainer.entropy_coef = before, coefficient
        for name, value in shares.merged(seen).items():
            before[name].append(value)
        return loss + done

    def _pools_steps(self, trainer: Any) -> bool:
        args = trainer.args
        depends = trainer.loss_type in PER_TOKEN or bool(trainer.entropy_coef)
        return not depends and args.steps_per_generation % args.gradient_accumulation_steps == 0

    def _parts(self, trainer: Any, pool: Pool) -> list[list[int]]:
        parts = packed(pool.lengths, self.budget)
        counts: list[int] = gather_object([len(parts)])
        return divided(parts, max(counts), pool.lengths)


class MicroBatchTrainer(VideoTrainer):
    """`VideoTrainer` with micro-batches of `max_tokens_per_micro_batch` tokens; None keeps TRL's.

    Raises (`__init__`):
        ValueError: a budget below 1, or a loss that needs all completions of a micro-batch of TRL's at once.
    """

    def __init__(self, *args: Any, max_tokens_per_micro_batch: int | None = None, **kwargs: Any) -> None:
        self.xp_budget = None if max_tokens_per_micro_batch is None else TokenBudget(max_tokens_per_micro_batch)
        super().__init__(*args, **kwargs)
        if self.xp_budget is not None:
            self.xp_budget.check(self)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        is_training: bool = model.training
        if self.xp_budget is None or not is_training:
            return super()._compute_loss(model, inputs)
        return self.xp_budget.loss(self, super()._compute_loss, model, inputs)


class _Shares:
    """Shares of each micro-batch in the completions and tokens of a pool."""

    def __init__(self, trainer: Any, pool: Pool, parts: Sequence[list[int]], slices: int) -> None:
        """
        Args:
            trainer: the trainer.
            pool: the completions.
            parts: those of each micro-batch.
            slices: micro-batches of TRL's that the pool holds.
        """
        self.trainer, self.slices = trainer, slices
        mask = pool.inputs["completion_mask"]
        mask = mask * pool.inputs["tool_mask"] if "tool_mask" in pool.inputs else mask
        tokens = mask.sum(dim=1).float()
        self.rows = torch.tensor([float(len(part)) for part in parts], device=mask.device)
        self.tokens = torch.stack([tokens[torch.tensor(part, device=mask.device)].sum() for part in parts])
        self.everywhere = trainer.accelerator.reduce(torch.stack([self.rows, self.tokens]), reduction="sum")

    def of_tokens(self, part: int) -> float:
        """The share of a micro-batch in the tokens of this process."""
        return (self.tokens[part] / self.tokens.sum().clamp(min=1.0)).item()

    def of_loss(self, part: int) -> float:
        """The weight of a micro-batch's loss.

        TRL has divided the loss by the micro-batches of an optimiser step.
        """
        kind = self.trainer.loss_type
        if kind in SUMMED:
            return 1.0
        share = self.of_tokens(part) if kind in PER_TOKEN else (self.rows[part] / self.rows.sum()).item()
        return self.slices * share

    def of_entropy(self, part: int) -> float:
        """The factor of TRL's entropy bonus in a loss with the weight `of_loss`.

        The bonus is a mean over tokens.
        """
        weight = self.of_loss(part)
        return self.of_tokens(part) / weight if weight else 0.0

    def merged(self, seen: Sequence[Mapping[str, list[float]]]) -> dict[str, float]:
        """The metrics of all micro-batches as if they were one."""
        return {
            name: self._merged(name, {part: each[name][-1] for part, each in enumerate(seen) if name in each})
            for name in seen[-1]
        }

    def _merged(self, name: str, by_part: Mapping[int, float]) -> float:
        if name == "entropy_coef":
            return self.trainer.entropy_coef
        if name == "policy_loss":
            return sum(value * self.of_loss(part) for part, value in by_part.items())
        if name.endswith(("_min", "_max")):
            best = min if name.endswith("_min") else max
            return best((value for value in by_part.values() if not math.isnan(value)), default=math.nan)
        rows, tokens = self.everywhere.tolist()
        weights = rows if self._per_completion(name) else tokens
        total = sum(weights[part] for part in by_part)
        return sum(value * weights[part] for part, value in by_part.items()) / max(total, 1.0)

    def _per_completion(self, name: str) -> bool:
        ratios = name.startswith(("clip_ratio/", "cispo_clip_ratio"))
        return name.startswith("vespo/") or (ratios and self.trainer.importance_sampling_level == "sequence")


@contextmanager
def _uneven_gather(accelerator: Any) -> Generator[None, None, None]:
    """In the body processes may gather different numbers of values; missing ones are NaN.

    TRL gathers one value per row, for a minimum and a maximum, which leave out NaN.
    """
    even = accelerator.gather
    accelerator.gather = lambda values: even(accelerator.pad_across_processes(values, pad_index=math.nan))
    try:
        yield
    finally:
        del accelerator.gather


def _backward(accelerator: Any, loss: Tensor) -> None:
    """Run the backward pass as `transformers.Trainer` does."""
    is_deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    accelerator.backward(loss, **({"scale_wrt_gas": False} if is_deepspeed else {}))
