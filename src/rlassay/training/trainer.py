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

from rlassay.credit import (
    Credit,
    CreditPart,
    Denominator,
    TokenSignals,
    as_parts,
    compose,
    needs,
    penalise_entropy,
    spread,
)
from rlassay.rewards.outcomes import FailureKind
from rlassay.rewards.weights import Phase, weight_at
from rlassay.signals import ScoringConfig
from rlassay.signals.measuring import (
    RolloutBatch,
    SignalBatch,
    SignalComputer,
    SignalPlan,
    attention_metrics,
    columns_of,
)
from rlassay.training.group_reward import GroupReward
from rlassay.training.reward_metrics import (
    ScoredBatch,
    ZeroVarianceRewards,
    added,
    restated,
    with_imputed,
    without_signal,
)
from rlassay.training.rollouts import WATCHED_GROUPS, Rollout, WatchedCompletion, token_measures, watch
from rlassay.training.vllm_images import patch_vllm_images
from rlassay.training.whole_batch import completion_text, images_of, own_rows, prompt_key, whole_readings, whole_signals


class CreditGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` with token credit, right reward statistics and a record of every completion.

    Takes the arguments of `trl.GRPOTrainer` and, by keyword:

    - `credit`, one part or several, each a function of the batch's `TokenSignals` that gives a weight per token, a
      selection of tokens or a scale per completion (see `rlassay.credit.CreditPart`);
    - `credit_denominator`, see `rlassay.credit.compose`; `entropy_penalty`, see `rlassay.credit.penalise_entropy`;
    - `weight_phases`, for each reward from which progress on it has which weight (see `rlassay.rewards.weights`); None
      keeps `reward_weights`;
    - `signals`, how the signals are measured that rewards and the parts of `rlassay.credit.CREDITS` go by.

    Advantages then become `advantages_B[:, None] * weights_BT`, a shape that TRL's loss accepts. Without credit, or
    with `uniform`, it trains the same weights as `GRPOTrainer`, bit for bit.

    `xp_listeners` are called with the `Rollout` of every generation batch of training, on the main process.

    Metrics besides TRL's: `time/generation`, `time/reward` and `time/signals`, seconds per generation batch, and those
    of the credit and of the attention. `frac_reward_zero_std` is the share of groups without signal under every
    aggregation, which TRL's own is not (see `group_statistics`).
    """

    def __init__(
        self,
        *args: Any,
        credit: CreditPart | Sequence[CreditPart] | None = None,
        credit_denominator: Denominator = "all",
        weight_phases: Sequence[Sequence[Phase]] | None = None,
        entropy_penalty: float = 0.0,
        signals: SignalPlan | None = None,
        **kwargs: Any,
    ) -> None:
        self.xp_credit = as_parts(credit)
        self.xp_credit_denominator: Denominator = credit_denominator
        self.xp_weight_phases = weight_phases
        self.xp_entropy_penalty = entropy_penalty
        self.xp_listeners: list[Callable[[Rollout], None]] = []
        super().__init__(*args, **kwargs)
        if self.use_vllm and self.vllm_mode == "colocate" and self._is_vlm:
            processor: Any = self.processing_class
            patch_vllm_images(self.vllm_generation, processor.image_token_id)
        self.xp_plan = signals or SignalPlan()
        self.xp_measurer = self._xp_measurer()
        self.xp_measured: SignalBatch | None = None
        self.xp_judged = [isinstance(reward, GroupReward) for reward in self.reward_funcs]
        self.xp_failed: dict[str, list[FailureKind | None]] = {}
        self.xp_lengths: Any = torch.empty(0)
        self.xp_silent = ZeroVarianceRewards()
        self.xp_raw = torch.empty(0)
        self.xp_scored = torch.empty(0)
        self.xp_sampled: tuple[list[Any], list[list[int]]] = ([], [])
        self.xp_readings: list[dict[str, float]] = []
        self.xp_seconds: dict[str, float] = {}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        output = super()._generate_and_score_completions(inputs)
        metrics = self._metrics["train" if self._xp_is_training() else "eval"]
        metrics["time/reward"].append(self.xp_seconds["reward"])
        metrics["time/signals"].append(self.xp_seconds["signals"])
        metrics["time/generation"].append(time.perf_counter() - began - sum(self.xp_seconds.values()))
        if self._xp_is_training():
            self._xp_restate_rewards(metrics)
        self._xp_give_credit(inputs, output, metrics)
        return output

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Float[Tensor, "batch rewards"]:
        began = time.perf_counter()
        if self.xp_weight_phases is not None and self._xp_is_training():
            progress = self.state.global_step / self.state.max_steps
            self.reward_weights = torch.tensor([weight_at(phases, progress) for phases in self.xp_weight_phases])
        self.xp_measured = self._xp_measure(inputs, prompts, completion_ids_list)
        self.xp_readings = whole_readings(self.accelerator, self.xp_measured)
        measured = time.perf_counter()
        self.xp_raw = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.xp_sampled = (completions, completion_ids_list)
        lengths = torch.tensor([float(len(ids)) for ids in completion_ids_list], device=self.xp_raw.device)
        self.xp_lengths = self.accelerator.gather(lengths)
        ours = [reward for reward in self.reward_funcs if isinstance(reward, GroupReward)]
        self.xp_failed = {reward.__name__: gather_object(reward.failed) for reward in ours}
        # By NaN our own rewards mean "cannot be judged"; those of others mean what TRL makes of it, a 0.
        judged = torch.tensor(self.xp_judged, device=self.xp_raw.device)
        self.xp_scored = torch.where(judged, with_imputed(self.xp_raw, self._xp_group_size()), self.xp_raw)
        self.xp_seconds = {"signals": measured - began, "reward": time.perf_counter() - measured}
        return self.xp_scored

    def _xp_measurer(self) -> SignalComputer:
        how = ScoringConfig(temperature=self.temperature, batch_size=self.args.per_device_train_batch_size)
        processor: Any = self.processing_class  # one that TRL takes
        return SignalComputer(processor, self.xp_plan, needs(self.xp_credit), how, self.args.seed)

    def _xp_measure(self, inputs: Any, prompts: Any, completion_ids: list[list[int]]) -> SignalBatch:
        """Measure what credit and rewards go by, and let our rewards know."""
        first = self.accelerator.process_index * len(inputs)
        size = self._xp_group_size()
        sampled = RolloutBatch(
            prompts=prompts,
            images=[images_of(prompt) for prompt in prompts],
            completion_ids=completion_ids,
            prompt_ids=[prompt_key(row) for row in inputs],
            samples=[(first + place) % size for place in range(len(inputs))],
            step=self.state.global_step + 1,
        )
        with self.accelerator.autocast():
            measured = self.xp_measurer(self.accelerator.unwrap_model(self.model), sampled)
        readings = {} if measured.attention is None else measured.attention.per_completion
        of_completions = {name: values.tolist() for name, values in readings.items()}
        for reward in self.reward_funcs:
            if isinstance(reward, GroupReward):
                reward.signals = of_completions
        return measured

    def _xp_give_credit(
        self, inputs: list[dict[str, Any]], output: dict[str, Any], metrics: dict[str, list[Any]]
    ) -> None:
        """Spread the advantages over the tokens, log what that means, and tell the listeners."""
        assert self.xp_measured is not None  # rewards have been calculated
        mask, advantages_B = output["completion_mask"], output["advantages"]
        signals = whole_signals(self.accelerator, self.xp_measured, mask, advantages_B)
        credit = compose(self.xp_credit, signals, self.xp_credit_denominator, self.loss_type)
        if self.xp_credit or self.xp_entropy_penalty:
            output["advantages"] = spread(advantages_B, own_rows(self.accelerator, credit.weights_BT, mask), mask)
        if self.xp_entropy_penalty:
            output["advantages"] = penalise_entropy(output["advantages"], mask, self.xp_entropy_penalty)
        if self._xp_is_training():
            columns = columns_of(self.xp_readings)
            logged = attention_metrics(columns, self.xp_plan.balance_ratio) | (credit.metrics if self.xp_credit else {})
            for name, value in logged.items():
                metrics[name].append(value)
            if self.xp_listeners:
                self._xp_tell_listeners(inputs, signals, credit, logged)

    def _xp_group_size(self) -> int:
        size = self.num_generations if self._xp_is_training() else self.num_generations_eval
        assert size is not None  # TRL's config has filled it in
        return size

    def _xp_is_training(self) -> bool:
        assert self.model is not None  # TRL's __init__ has set it
        return self.model.training

    def _xp_restate_rewards(self, metrics: dict[str, list[Any]]) -> None:
        """Correct what TRL has just logged (dead groups; means and deviations are over judged completions), and add."""
        dead = without_signal(
            self.xp_scored,
            self.reward_weights.to(self.xp_scored.device),
            self._xp_group_size(),
            normalized_first=self.multi_objective_aggregation == "normalize_then_sum",
        )
        metrics["frac_reward_zero_std"][-1] = dead.float().mean().item()
        batch = ScoredBatch(
            names=self.reward_func_names,
            rewards=self.reward_funcs,
            raw=self.xp_raw,
            lengths=self.xp_lengths,
            weights=self.reward_weights,
            failed=self.xp_failed,
            num_generations=self._xp_group_size(),
        )
        for name, value in restated(batch).items():
            metrics[name][-1] = value
        for name, value in added(batch).items():
            metrics[name].append(value)
        paid = [name for name, weight in zip(batch.names, batch.weights, strict=True) if weight]
        self.xp_silent({name: metrics[f"rewards/{name}/frac_zero_std"][-1] for name in paid}, len(dead))

    def _xp_tell_listeners(
        self, inputs: list[dict[str, Any]], signals: TokenSignals, credit: Credit, logged: dict[str, float]
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
            advantages=signals.advantages_B,
            failed=self.xp_failed,
            signals=columns_of(self.xp_readings),
            scale=credit.scale_B,
            metrics=logged,
        )
        if self.accelerator.is_main_process:
            rollout = replace(rollout, watched=self._xp_watch(rollout, signals, credit, completion_ids))
            for listener in self.xp_listeners:
                listener(rollout)

    def _xp_watch(
        self, rollout: Rollout, signals: TokenSignals, credit: Credit, completion_ids: list[list[int]]
    ) -> tuple[WatchedCompletion, ...]:
        """The first groups, token by token; they are the main process's own."""
        assert self.xp_measured is not None  # rewards have been calculated
        model = self.accelerator.unwrap_model(self.model)
        count = min(WATCHED_GROUPS * rollout.num_generations, len(completion_ids))
        measured = self.xp_measured
        with self.accelerator.autocast():
            vision = self.xp_measurer.image_attention(model, measured, count)
        measures = token_measures(signals, measured, credit, vision)
        return watch(rollout, measures, completion_ids[:count], self._tokenizer)
