# pyright: basic
# (accelerate has no types, and those of TRL leave most attributes of a trainer open)
"""The door into TRL: swap `GRPOTrainer` for `CreditGRPOTrainer` in an existing script.

The steps of one generation batch are measure -> reward -> advantage -> credit -> record. Each step takes the
`GenerationBatch` and fills the fields listed under its name there.

Only methods whose signatures are stable are overridden, and TRL's loss is never copied. Our
attributes start with `xp_`, a prefix that TRL does not use: its `__init__` and loss set plain names such as `top_p`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages import AdvantageEstimator, as_estimator
from rlassay.credit import (
    CreditPart,
    Denominator,
    as_parts,
    check_denominator,
    check_parts,
    check_penalty,
    compose,
    needs,
    penalise_entropy,
    spread,
)
from rlassay.credit.parts import part_name, registered_name
from rlassay.models.policy import end_token_ids
from rlassay.models.seq2seq import is_encoder_decoder
from rlassay.rewards.weights import Phase, weight_at
from rlassay.signals import SampledPrompts, ScoringConfig
from rlassay.signals.formulas import IMAGE_SIGNALS
from rlassay.signals.measuring import (
    RolloutBatch,
    SignalComputer,
    SignalPlan,
    attention_metrics,
    columns_of,
    completion_signals,
)
from rlassay.training.algorithms.advantages import AdvantageStep
from rlassay.training.algorithms.choice import GroupChooser, GroupPlan, dropped_rollout
from rlassay.training.algorithms.critic import CriticOptions
from rlassay.training.algorithms.sampling import generated as generated_by
from rlassay.training.algorithms.sampling import rewards_of
from rlassay.training.algorithms.sampling_seeds import SamplingSeeds
from rlassay.training.algorithms.token_penalty import check_reuse, penalise_tokens
from rlassay.training.batch import BatchRewards, GenerationBatch, completion_text, gathered_signals, own_rows
from rlassay.training.group_reward import SIGNALS_COLUMN, GroupReward, connect_rewards, trl_rewards
from rlassay.training.reward_metrics import (
    ZeroVarianceRewards,
    added_metrics,
    frac_distinct,
    impute_group_mean,
    scored_mean_and_std,
    zero_advantage,
)
from rlassay.training.rollouts import TOKEN_GROUPS, Rollout, TokenRecord, token_records, token_values
from rlassay.training.scale.micro_batches import MicroBatchTrainer
from rlassay.training.scale.strategy import with_whole_weights
from rlassay.training.vllm.sampler import VLLMPlan, VLLMSampling


class CreditGRPOTrainer(MicroBatchTrainer):
    """`trl.GRPOTrainer` with token credit, corrected reward metrics and a record of every completion.

    Takes the arguments of `trl.GRPOTrainer` and, by keyword:

    - `credit`, one part or several, each a name of `rlassay.credit.CREDITS` or a function of the batch's
      `TokenSignals` that returns a weight per token, a selection of tokens or a scale per completion (see
      `rlassay.credit.CreditPart`);
    - `credit_denominator`, see `rlassay.credit.compose`; `entropy_penalty`, see `rlassay.credit.penalise_entropy`;
    - `advantage`, a function `f(rewards, num_generations)` or a name of `rlassay.advantages.ADVANTAGES`; None and
      `grpo` keep TRL's advantages; `critic` makes them by GAE instead, see `CriticOptions`;
    - `weight_phases`, for each reward the weights over training and the progress at which each begins (see
      `rlassay.rewards.weights`); None keeps `reward_weights`;
    - `groups`, which of the sampled completions train: dynamic sampling, replay, part of each group, see `GroupPlan`;
    - `vllm`, further settings for `use_vllm`, and when the run stops, see `VLLMPlan`;
    - `common_random_numbers`: runs of the same seed sample with the same random numbers at every step;
    - `kl`, a penalty for leaving the reference policy in place of TRL's `beta`, see `KLControl`;
    - `max_tokens_per_micro_batch`, most tokens of a forward pass of the loss, see `TokenBudget`;
    - `signals`, how to measure the signals that rewards and credit parts read.

    A credit function of your own declares the signals that it reads:

        from rlassay.credit import credit_part

        @credit_part(needs={"entropy"})
        def uncertain_tokens(signals):
            return signals.entropy_BT > 1.0  # a filter; (B, T) like every signal

        CreditGRPOTrainer(model, reward_funcs, args, train_dataset=rows, credit=["attention_weights", uncertain_tokens])

    Credit turns advantages into `advantages_B[:, None] * weights_BT`, a shape that TRL's loss accepts. Without credit
    the trained weights equal those of `GRPOTrainer` bit for bit, and with `uniform` too, except with
    `importance_sampling_level="sequence"`, where the loss sums (B, T) values in another order (differences below 1e-5).

    Signals are measured on exactly the tokens and images that TRL sampled from (also with `rollout_func`, tools or
    `chat_template_kwargs`), and entropy equals that of TRL's own loss. Tokens that the loss leaves out, such as results
    of tools, have no credit and enter no filter. TRL's `clip_ratio/*` count every completion token, and those without
    credit as not clipped: divide by `combined_token_fraction` for the share among the selected ones.

    `reward_funcs` may hold rewards of `rlassay.rewards.REWARDS`, see `rlassay.training.trl_reward`.

    Reward functions get one more keyword argument, `completion_signals`: the signals of each completion by name.
    `xp_listeners` are called with the `Rollout` of every generation batch of training, on the main process.

    Raises (`__init__`, beside TRL's errors):
        ValueError: an unknown name or an option out of range in any of these arguments; credit from images for a model
            that sees none; `top_entropy_quantile` beside `entropy_filter`; phases for another number of rewards.

    Metrics beside TRL's: `time/generation`, `time/reward` and `time/signals`, seconds per generation batch, those of
    `reward_metrics`, and those of credit and attention.
    """

    xp_encoder_decoder = False
    """Whether the class trains encoder-decoders; `Seq2SeqGRPOTrainer` does."""

    def __init__(  # noqa: PLR0913  # TRL users set each by keyword
        self,
        *args: Any,
        credit: CreditPart | str | Sequence[CreditPart | str] | None = None,
        credit_denominator: Denominator = "all",
        weight_phases: Sequence[Sequence[Phase]] | None = None,
        entropy_penalty: float = 0.0,
        signals: SignalPlan | None = None,
        advantage: AdvantageEstimator | str | None = None,
        critic: CriticOptions | None = None,
        groups: GroupPlan | None = None,
        vllm: VLLMPlan | None = None,
        common_random_numbers: bool = False,
        **kwargs: Any,
    ) -> None:
        self.xp_credit_parts = as_parts(credit)
        self.xp_credit_denominator: Denominator = credit_denominator
        self.xp_weight_phases = weight_phases
        self.xp_entropy_penalty = entropy_penalty
        self.xp_advantages = AdvantageStep(as_estimator(advantage), critic)
        self.xp_groups = GroupChooser(groups or GroupPlan())
        self.xp_signal_plan = signals or SignalPlan()
        self.xp_sampling = VLLMSampling(vllm, SamplingSeeds(common_random_numbers=common_random_numbers))
        self.xp_listeners: list[Callable[[Rollout], None]] = []
        self.xp_zero_variance = ZeroVarianceRewards()
        check_parts(self.xp_credit_parts)
        check_penalty(entropy_penalty)
        kwargs |= {name: trl_rewards(kwargs[name]) for name in ("reward_funcs",) if name in kwargs}
        with self.xp_sampling.opening():
            super().__init__(*args[:1], *map(trl_rewards, args[1:2]), *args[2:], **kwargs)
        self.xp_parts = [self.xp_advantages, self.xp_groups]
        self._xp_check()
        for part in (self.xp_sampling, *self.xp_parts):
            part.prepare(self)
        processor: Any = self.processing_class
        scoring = ScoringConfig(temperature=self.temperature, batch_size=self.args.per_device_train_batch_size)
        needed = needs([*self.xp_credit_parts, *self.xp_kl_credit])
        self.xp_signal_computer = SignalComputer(processor, self.xp_signal_plan, needed, scoring, self.args.seed)
        self.xp_end_token_ids = end_token_ids(self._xp_model(), processor, padding=True)
        connect_rewards(self.reward_funcs, self.num_generations or 0, self.xp_end_token_ids)

    def _xp_check(self) -> None:
        """Refuse settings that would fail, or be ignored, after the first generation."""
        if is_encoder_decoder(self._xp_model()) and not self.xp_encoder_decoder:
            raise ValueError(
                f"model: got {type(self._xp_model()).__name__}, an encoder-decoder; this trainer scores prompt and "
                "completion as one sequence, which would train it silently wrong. Use Seq2SeqGRPOTrainer"
            )
        check_denominator(self.xp_credit_denominator, self.loss_type)
        check_reuse(self.xp_credit_parts, self.args)
        for part in [*self.xp_credit_parts, *self.xp_kl_credit]:
            of_image = sorted(needs([part]) & IMAGE_SIGNALS)
            if of_image and not self._is_vlm:
                raise ValueError(
                    f"credit part {part_name(part)} needs {', '.join(of_image)}, which only a model that sees images "
                    f"has; {type(self._xp_model()).__name__} with this processing_class is a text model"
                )
        filters = [registered_name(part) for part in self.xp_credit_parts]
        if self.top_entropy_quantile < 1 and "entropy_filter" in filters:
            raise ValueError(
                f"top_entropy_quantile: got {self.top_entropy_quantile} beside the credit part entropy_filter; both "
                "select tokens by entropy, so that the loss would keep only those that both select: drop one"
            )
        if self.xp_weight_phases is not None and len(self.xp_weight_phases) != len(self.reward_funcs):
            raise ValueError(
                f"weight_phases: got {len(self.xp_weight_phases)}, expected one for each of the "
                f"{len(self.reward_funcs)} rewards: {', '.join(self.reward_func_names)}"
            )

    @with_whole_weights
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """All steps: TRL samples and calls `_calculate_rewards` (measure, reward); the other steps follow."""
        began = time.perf_counter()
        is_training: bool = self._xp_model().training
        num_generations = self.num_generations if is_training else self.num_generations_eval
        assert num_generations is not None  # TRL's config has filled it in
        step = self.state.global_step + 1
        batch = GenerationBatch(rows=inputs, is_training=is_training, num_generations=num_generations, step=step)
        # TRL passes no argument of ours to `_generate` and `_calculate_rewards`: they read the batch from here.
        self.xp_batch = batch
        output = super()._generate_and_score_completions(self.xp_groups.choose(self, batch))
        self.xp_sampling.check(self, output)
        batch.seconds["generation"] = time.perf_counter() - began - sum(batch.seconds.values())
        self._xp_advantage(batch, output)
        self.xp_groups.settle(self, batch, output)
        self._xp_credit(batch, output)
        self._xp_record(batch)
        return self.xp_groups.reduce(self, batch, output)

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """Called by TRL to sample; keeps the tokens that the loss will see, for the signal pass."""
        batch = self.xp_batch
        if batch.chosen is None:
            with self.xp_sampling.seeds.common(self):
                generated = super()._generate(prompts)
        else:
            self.xp_process_media(prompts)
            generated = generated_by(batch.chosen, prompts, with_images=self.xp_media is None)
        batch.prompt_tokens, _, batch.tool_mask, *_, batch.tool_images = generated
        return generated

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Float[Tensor, "completions rewards"]:
        """Called by TRL once it has sampled: measure, then reward. Covers the completions of all processes."""
        batch = self.xp_batch
        batch.prompts, batch.completions, batch.completion_ids = prompts, completions, completion_ids_list
        self._xp_measure(batch)
        if batch.chosen is None:
            self._xp_reward(batch)
        else:
            batch.rewards = rewards_of(batch.chosen, self.accelerator.device)
        return batch.rewards.rewards_per_func

    def _xp_measure(self, batch: GenerationBatch) -> None:
        """Measure the signals that rewards and credit parts read."""
        began = time.perf_counter()
        size = len(batch.rows)
        first = self.accelerator.process_index * size
        multiple: Any = self.pad_to_multiple_of
        rollout = RolloutBatch(
            prompts=batch.prompts,
            images=batch.images,
            completion_ids=batch.completion_ids,
            prompt_ids=batch.prompt_ids,
            samples=[index % batch.num_generations for index in range(first, first + size)],
            step=batch.step,
            sampled=SampledPrompts(
                token_ids=batch.prompt_tokens,
                rendering=self._xp_rendering(size),
                pad_to_multiple_of=multiple,
                images_in_completions=any(batch.tool_images),
            ),
            own_tokens=batch.tool_mask,
        )
        with self.accelerator.autocast():
            batch.measured = self.xp_signal_computer(self._xp_model(), rollout)
        batch.signals = completion_signals(batch.measured)
        batch.all_signals = gather_object(batch.signals)
        batch.seconds["signals"] += time.perf_counter() - began

    def _xp_rendering(self, size: int) -> list[dict[str, Any]]:
        """The arguments with which TRL rendered each prompt."""
        tools = [self.tools] * size
        if self.environment_factories is not None:
            tools = [self._env_tools[name] for name in self._batch_environments]
        return [{"tools": of_prompt or None, **self._xp_template_options()} for of_prompt in tools]

    def _xp_reward(self, batch: GenerationBatch) -> None:
        """Score the completions, by TRL's own loop over the reward functions."""
        began = time.perf_counter()
        if self.xp_weight_phases is not None and batch.is_training:
            progress = self.state.global_step / self.state.max_steps
            self.reward_weights = torch.tensor([weight_at(phases, progress) for phases in self.xp_weight_phases])
        # TRL passes each column of the rows to the reward functions, as a list with one value per completion.
        rows = [row | {SIGNALS_COLUMN: signals} for row, signals in zip(batch.rows, batch.signals, strict=True)]
        raw = super()._calculate_rewards(rows, batch.prompts, batch.completions, batch.completion_ids)
        ours = [reward for reward in self.reward_funcs if isinstance(reward, GroupReward)]
        # NaN of our own rewards means "could not score"; TRL counts the NaN of other rewards as 0.
        is_ours = torch.tensor([isinstance(reward, GroupReward) for reward in self.reward_funcs], device=raw.device)
        batch.rewards = BatchRewards(
            names=self.reward_func_names,
            raw=raw,
            rewards_per_func=torch.where(is_ours, impute_group_mean(raw, batch.num_generations), raw),
            weights=self.reward_weights.to(raw.device),
            failed={reward.__name__: gather_object(reward.failed) for reward in ours},
            metrics={reward.__name__: gather_object(reward.metrics) for reward in ours},
            num_generations=batch.num_generations,
        )
        batch.seconds["reward"] += time.perf_counter() - began

    def _xp_advantage(self, batch: GenerationBatch, output: dict[str, Any]) -> None:
        """Keep TRL's advantages, or replace them by those of another estimator."""
        # The mask of TRL's loss, which leaves out tokens written by tools and environments.
        mask = output["completion_mask"]
        batch.completion_mask = mask * output["tool_mask"] if "tool_mask" in output else mask
        batch.kl_penalty_BT = None if self.xp_kl is None else self.xp_kl.of_reward(self, output, batch.completion_mask)
        self.xp_advantages(self, batch, output)

    def _xp_credit(self, batch: GenerationBatch, output: dict[str, Any]) -> None:
        """Spread the advantages over the tokens; without credit TRL's loss gets them unchanged."""
        mask = batch.completion_mask
        size, length = mask.shape
        batch.token_signals = gathered_signals(self.accelerator, batch.measured, mask, batch.advantages_B)
        batch.credit = compose(self.xp_credit_parts, batch.token_signals, self.xp_credit_denominator, self.loss_type)
        if self.xp_credit_parts or self.xp_entropy_penalty:
            weights_BT = own_rows(self.accelerator, batch.credit.weights_BT, size)[:, :length]
            output["advantages"] = spread(output["advantages"], weights_BT, mask)
        if self.xp_entropy_penalty:
            output["advantages"] = penalise_entropy(output["advantages"], mask, self.xp_entropy_penalty)
        batch.kl_metrics = penalise_tokens(self, batch.credit, batch.token_signals, output)

    def _xp_record(self, batch: GenerationBatch) -> None:
        """Log the metrics of the batch, and give its `Rollout` to the listeners."""
        metrics = self._metrics["train" if batch.is_training else "eval"]
        for name in ("reward", "signals", "generation"):
            metrics[f"time/{name}"].append(batch.seconds[name])
        if not batch.is_training:
            return
        self._xp_log_rewards(batch, metrics)
        logged = attention_metrics(columns_of(batch.all_signals), self.xp_signal_plan.balance_ratio)
        logged |= (batch.credit.metrics if self.xp_credit_parts else {}) | batch.kl_metrics
        logged |= {} if batch.greedy is None else {"greedy_reward": batch.greedy.rewards.nanmean().item()}
        logged |= self.xp_groups.metrics(batch)
        for name, value in logged.items():
            metrics[name].append(value)
        if self.xp_listeners:
            rollout = self._xp_rollout(batch, logged)
            rollout = replace(rollout, token_records=self._xp_token_records(batch, rollout))
            if self.accelerator.is_main_process:
                dropped = dropped_rollout(batch, rollout, self.xp_end_token_ids)
                for listener in self.xp_listeners:
                    listener(rollout)
                    if dropped is not None:
                        listener(dropped)

    def _xp_log_rewards(self, batch: GenerationBatch, metrics: dict[str, list[Any]]) -> None:
        rewards = batch.rewards
        no_advantage = zero_advantage(rewards.totals(self.multi_objective_aggregation), rewards.num_generations)
        # TRL has just logged this, but for some options from the deviation of the whole batch, which is almost never 0.
        metrics["frac_reward_zero_std"][-1] = no_advantage.float().mean().item()
        # TRL has just logged these too, but over the imputed values as well.
        for name, value in scored_mean_and_std(rewards).items():
            metrics[name][-1] = value
        own_lengths = torch.tensor([float(len(ids)) for ids in batch.completion_ids], device=rewards.raw.device)
        lengths: Any = self.accelerator.gather(own_lengths)
        for name, value in added_metrics(rewards, self.reward_funcs, lengths).items():
            metrics[name].append(value)
        all_ids: list[list[int]] = gather_object(batch.completion_ids)
        metrics["completions/frac_distinct"].append(frac_distinct(all_ids, batch.num_generations))
        weighted = [name for name, weight in zip(rewards.names, rewards.weights, strict=True) if weight]
        shares = {name: metrics[f"rewards/{name}/frac_zero_std"][-1] for name in weighted}
        self.xp_zero_variance(shares, len(no_advantage))

    def _xp_rollout(self, batch: GenerationBatch, logged: dict[str, float]) -> Rollout:
        """The record of the whole batch; every process has to call this, since it gathers."""
        ids = batch.completion_ids
        return Rollout(
            step=batch.step,
            num_generations=batch.num_generations,
            prompt_ids=gather_object(batch.prompt_ids),
            completions=gather_object([completion_text(completion) for completion in batch.completions]),
            token_counts=gather_object([len(each) for each in ids]),
            finished=gather_object([each[-1] in self.xp_end_token_ids for each in ids]),
            reward_names=batch.rewards.names,
            raw=batch.rewards.raw,
            weighted=batch.rewards.weighted,
            advantages=batch.token_signals.advantages_B,
            failed=batch.rewards.failed,
            signals=columns_of(batch.all_signals),
            scale=batch.credit.scale_B,
            greedy=batch.greedy,
            metrics=logged,
            use=self.xp_groups.use(batch),
        )

    def _xp_token_records(self, batch: GenerationBatch, rollout: Rollout) -> tuple[TokenRecord, ...]:
        """Token records of the main process's first groups; every process takes part in the pass."""
        count = min(TOKEN_GROUPS * batch.num_generations, len(batch.completion_ids))
        with self.accelerator.autocast():
            vision = self.xp_signal_computer.image_attention(self._xp_model(), batch.measured, count)
        if not self.accelerator.is_main_process:
            return ()
        values = token_values(batch.token_signals, batch.measured, batch.credit, vision)
        return token_records(rollout, values, batch.completion_ids[:count], self._tokenizer)

    def _xp_model(self) -> Any:
        """The policy without the wrappers of accelerate."""
        return self.accelerator.unwrap_model(self.model)
