"""The plug-in into TRL: swap `GRPOTrainer` for `CreditGRPOTrainer` in an existing script.

Only methods whose signatures have been stable for over a year are overridden, and TRL's loss is never copied. Our
attributes start with `xp_`, because TRL's `__init__` and loss set names such as `top_p`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from rlassay.credit import CreditPart, Denominator, TokenSignals, compose, spread
from rlassay.training.batch_rows import completion_text, prompt_key
from rlassay.training.group_reward import GroupReward
from rlassay.training.group_statistics import with_stand_ins, without_signal
from rlassay.training.rollouts import Rollout
from rlassay.training.vllm_images import mend_images
from rlassay.training.watched import TokenMeasures, watch


class CreditGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` with token credit, right reward statistics and a record of every completion.

    Takes the arguments of `trl.GRPOTrainer` and, by keyword, `credit`: one part or several, each a function of the
    batch's `TokenSignals` that gives a weight per token, a selection of tokens or a scale per completion (see
    `rlassay.credit.CreditPart`), and `credit_denominator`, see `rlassay.credit.compose`. Advantages then become
    `advantages_B[:, None] * weights_BT`, a shape that TRL's loss accepts. Without credit, or with `uniform`, it trains
    the same weights as `GRPOTrainer`, bit for bit.

    `xp_listeners` are called with the `Rollout` of every generation batch of training, on the main process.

    Metrics besides TRL's: `time/generation` and `time/reward`, seconds per generation batch. `frac_reward_zero_std` is
    the share of groups without signal under every aggregation, which TRL's own is not (see `group_statistics`).
    """

    def __init__(
        self,
        *args: Any,
        credit: CreditPart | Sequence[CreditPart] | None = None,
        credit_denominator: Denominator = "all",
        **kwargs: Any,
    ) -> None:
        self.xp_credit = _as_parts(credit)
        self.xp_credit_denominator: Denominator = credit_denominator
        self.xp_listeners: list[Callable[[Rollout], None]] = []
        super().__init__(*args, **kwargs)
        if self.use_vllm and self.vllm_mode == "colocate" and self._is_vlm:
            mend_images(self.vllm_generation, self.processing_class.image_token_id)
        self.xp_judged = [isinstance(reward, GroupReward) for reward in self.reward_funcs]
        self.xp_raw = torch.empty(0)
        self.xp_scored = torch.empty(0)
        self.xp_sampled: tuple[list[Any], list[list[int]]] = ([], [])
        self.xp_reward_seconds = 0.0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        output = super()._generate_and_score_completions(inputs)
        if self._xp_is_training():
            metrics = self._metrics["train"]
            metrics["time/reward"].append(self.xp_reward_seconds)
            metrics["time/generation"].append(time.perf_counter() - began - self.xp_reward_seconds)
            self._xp_restate_rewards(metrics)
        mask, advantages_B = output["completion_mask"], output["advantages"]
        weights_BT = torch.ones_like(mask, dtype=torch.float32)
        if self.xp_credit:
            weights_BT = self._xp_weights(advantages_B, mask)
            output["advantages"] = spread(advantages_B, weights_BT, mask)
        if self._xp_is_training() and self.xp_listeners:
            self._xp_tell_listeners(inputs, self.accelerator.gather(advantages_B), weights_BT)
        return output

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Float[Tensor, "batch rewards"]:
        began = time.perf_counter()
        self.xp_raw = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.xp_sampled = (completions, completion_ids_list)
        # By NaN our own rewards mean "cannot be judged"; those of others mean what TRL makes of it, a 0.
        judged = torch.tensor(self.xp_judged, device=self.xp_raw.device)
        self.xp_scored = torch.where(judged, with_stand_ins(self.xp_raw, self._xp_group_size()), self.xp_raw)
        self.xp_reward_seconds = time.perf_counter() - began
        return self.xp_scored

    def _xp_weights(self, advantages_B: Tensor, completion_mask: Tensor) -> Float[Tensor, "batch time"]:
        signals = TokenSignals(
            completion_mask=completion_mask,
            advantages_B=advantages_B,
            has_image_B=torch.zeros_like(advantages_B, dtype=torch.bool),
        )
        return compose(self.xp_credit, signals, self.xp_credit_denominator, self.loss_type).weights_BT

    def _xp_group_size(self) -> int:
        size = self.num_generations if self._xp_is_training() else self.num_generations_eval
        assert size is not None  # TRL's config has filled it in
        return size

    def _xp_is_training(self) -> bool:
        assert self.model is not None  # TRL's __init__ has set it
        return self.model.training

    def _xp_restate_rewards(self, metrics: dict[str, list[Any]]) -> None:
        """Correct what TRL has just logged: dead groups, and means and deviations over judged completions only."""
        dead = without_signal(
            self.xp_scored,
            self.reward_weights.to(self.xp_scored.device),
            self._xp_group_size(),
            normalized_first=self.multi_objective_aggregation == "normalize_then_sum",
        )
        metrics["frac_reward_zero_std"][-1] = dead.float().mean().item()
        for index, name in enumerate(self.reward_func_names):
            values = self.xp_raw[:, index]
            values = values[~torch.isnan(values)]
            if len(values) < len(self.xp_raw):
                metrics[f"rewards/{name}/mean"][-1] = values.mean().item()
                metrics[f"rewards/{name}/std"][-1] = values.std().item() if len(values) > 1 else float("nan")

    def _xp_tell_listeners(
        self, inputs: list[dict[str, Any]], advantages_B: Any, weights_BT: Float[Tensor, "batch time"]
    ) -> None:
        completions, completion_ids = self.xp_sampled
        ends = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        rollout = Rollout(
            step=self.state.global_step + 1,
            num_generations=self._xp_group_size(),
            prompt_ids=gather_object([prompt_key(row) for row in inputs]),
            completions=gather_object([completion_text(completion) for completion in completions]),
            token_counts=gather_object([len(ids) for ids in completion_ids]),
            finished=gather_object([ids[-1] in ends for ids in completion_ids]),
            reward_names=self.reward_func_names,
            raw=self.xp_raw,
            weighted=self.xp_scored * self.reward_weights.to(self.xp_scored.device),
            advantages=advantages_B,
        )
        if self.accelerator.is_main_process:
            watched = watch(rollout, TokenMeasures(weights_BT=weights_BT), completion_ids, self._tokenizer)
            rollout = replace(rollout, watched=watched)
            for listener in self.xp_listeners:
                listener(rollout)


def _as_parts(credit: CreditPart | Sequence[CreditPart] | None) -> list[CreditPart]:
    parts = [] if credit is None else [credit] if callable(credit) else list(credit)
    for part in parts:
        if not callable(part):
            raise TypeError(f"credit: got {part!r}, expected a function of the token signals, or a list of them")
    return parts
