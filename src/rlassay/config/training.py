"""The `sft`, `rl` and `rewards` sections, and the recipe of an arm.

A recipe contains the sections. Their keys have TRL's names.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from rlassay.config.algorithm import AdvantageConfig, GroupChoice, GRPOAdvantage, GuardConfig, KLConfig
from rlassay.config.credit import CreditConfig, SignalsConfig, UniformCredit
from rlassay.config.engine import DEFAULT_ENGINE, RLEngine, is_default_engine
from rlassay.config.model import ModelConfig, Tune
from rlassay.config.section import Section, is_false, is_none
from rlassay.rewards.weights import Phase, early_steps, weight_phases


class Optimisation(Section):
    """Settings of both training stages."""

    max_steps: int = Field(ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW."""
    lr_scheduler_type: Literal["constant", "linear", "cosine", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay of the mean gradient."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's decay of the mean squared gradient."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are rescaled to this norm at most."""
    per_device_train_batch_size: int = Field(ge=1)
    """Samples (for RL: completions) per device and micro-batch."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Micro-batches per optimiser step."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    optim: Literal["adamw_torch_fused", "adamw_torch", "adamw_bnb_8bit", "paged_adamw_8bit"] = "adamw_torch_fused"
    """Which AdamW, in transformers' words; those in 8 bits keep its states in a quarter of the memory, and need a GPU
    and bitsandbytes."""
    use_liger_kernel: bool = False
    """Liger's kernels for layers of the model; they need a GPU and liger-kernel. TRL fuses the loss itself."""
    torch_compile: bool = False
    """Compile the model with `torch.compile`, which needs a C++ compiler."""
    save_steps: int = Field(default=50, ge=1)
    """Steps between checkpoints; a killed job resumes from the newest intact one."""


class SFTConfig(Optimisation):
    """The supervised warm start on the `sft` split."""

    activation_offloading: bool = False
    """Keep activations in the machine's memory until the backward pass, which needs a GPU; TRL has it for SFT only."""
    seed: int = Field(default=0, ge=0)
    """Seed of the shared warm start; with `per_seed` the run's own seed is used instead."""
    per_seed: bool = False
    """Train one warm start per seed, so that intervals cover its variance too; false shares one."""


class GRPOArguments(Optimisation):
    """Settings that TRL's `GRPOConfig` takes under the same names.

    Every default that TRL changed between releases is set here explicitly.
    """

    num_generations: int = Field(default=8, ge=2)
    """Completions per prompt: the size of a group."""
    steps_per_generation: int = Field(default=1, ge=1)
    """Micro-batches that one generation batch feeds. The policy that samples is refreshed for each generation batch, so
    after `num_iterations * steps_per_generation / gradient_accumulation_steps` optimiser steps: other systems call this
    `update_old_after`."""
    num_iterations: int = Field(default=1, ge=1)
    """Passes over each generation batch."""
    max_completion_length: int = Field(ge=1)
    """Longest completion, tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampled distribution."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """How token losses are averaged into one number."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """Where the importance ratio is formed; `sequence` is GSPO."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Which standard deviation divides the advantages."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    """Whether rewards are summed before or after the normalisation within a group."""
    epsilon: float = Field(default=0.2, gt=0)
    """Clip range below 1."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """Clip range above 1; null takes `epsilon`."""
    delta: float | None = Field(default=None, gt=1)
    """Upper bound of the ratio for negative advantages (dual clip), above 1 + epsilon_high; null sets none."""
    sapo_temperature_pos: float = Field(default=1.0, gt=0)
    """With loss_type sapo, how steeply the gate closes for positive advantages."""
    sapo_temperature_neg: float = Field(default=1.05, gt=0)
    """With loss_type sapo, how steeply the gate closes for negative advantages."""
    vespo_k_pos: float = Field(default=2.0, gt=0)
    """With loss_type vespo, power of the ratio for positive advantages."""
    vespo_lambda_pos: float = Field(default=3.0, gt=0)
    """With loss_type vespo, decay in the ratio for positive advantages."""
    vespo_k_neg: float = Field(default=3.0, gt=0)
    """With loss_type vespo, power of the ratio for negative advantages."""
    vespo_lambda_neg: float = Field(default=2.0, gt=0)
    """With loss_type vespo, decay in the ratio for negative advantages."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of TRL's entropy bonus. This times the mean entropy over the vocabulary is taken from the loss."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the warm start."""
    use_bias_correction_kl: bool = True
    """Weight the KL estimate by the importance ratio; for TRL's own KL term, not for `kl`."""
    sync_ref_model: bool = False
    """Move the reference policy towards the trained one from time to time; not with adapters."""
    ref_model_mixup_alpha: float = Field(default=0.6, gt=0, le=1)
    """Share of the way that the reference moves each time."""
    ref_model_sync_steps: int = Field(default=512, ge=1)
    """Optimiser steps between its moves."""
    mask_truncated_completions: bool = False
    """Leave truncated completions out of the loss."""


class RLConfig(GroupChoice, GRPOArguments):
    """GRPO on the `train` split: TRL's settings, and ours."""

    engine: RLEngine = Field(default=DEFAULT_ENGINE, exclude_if=is_default_engine)
    """The library that samples completions; by default transformers."""
    advantage: AdvantageConfig = GRPOAdvantage(kind="grpo")
    """How rewards become advantages."""
    kl: KLConfig | None = Field(default=None, exclude_if=is_none)
    """The KL penalty; null leaves it to TRL: k3 in the loss, if `beta` is above 0."""
    beam_sampling: bool = Field(default=False, exclude_if=is_false)
    """Sample each group from one beam search of `num_generations` beams, as some published code does; for
    encoder-decoders. Its completions are near-duplicates: see `completions/frac_distinct`."""
    common_random_numbers: bool = Field(default=False, exclude_if=is_false)
    """Draw the random numbers of each step from the run's seed and step alone. Arms then have the same sampling noise
    at every step, as they do with vLLM; false draws them one after the other."""
    guard: GuardConfig | None = Field(default=None, exclude_if=is_none)
    """Rules that end a collapsed run early; null trains it to the end."""
    tune: Tune | None = Field(default=None, exclude_if=is_none)
    """Parts of a vision-language model that train, by full weights or by adapters; null trains all."""
    max_tokens_per_micro_batch: int | None = Field(default=None, ge=1, exclude_if=is_none)
    """Largest number of tokens in a micro-batch, prompts and completions together. The completions of an optimiser step
    are sorted by length and divided into such micro-batches, in place of `per_device_train_batch_size` completions
    padded to the longest of all. The loss stays the same up to rounding; null keeps TRL's micro-batches."""


class RewardConfig(Section):
    """One reward of an arm."""

    weight: float
    """Its weight in the sum; with 0 it is logged only and never trains."""
    early_weight: float | None = None
    """Its weight in the early phase. The phase lasts `rl.warmup_steps`, or without a warm-up a tenth of the steps; null
    means no early phase."""
    schedule: tuple[tuple[Annotated[float, Field(ge=0, le=1)], float], ...] = ()
    """Pairs of training progress (steps done over `rl.max_steps`, ascending) and the weight from then on; before the
    first pair it is `weight`."""
    kind: Literal["custom"] | None = Field(default=None, exclude_if=is_none)
    """`custom` for a function of your own, under any name; null for the built-in reward that the name says."""
    path: str | None = Field(default=None, exclude_if=is_none)
    """With `kind: custom`, the Python file, a colon and the function, such as `rewards.py:brevity`."""
    batch: bool = Field(default=False, exclude_if=is_false)
    """With `kind: custom`, whether the function takes the group as a list, not one completion."""
    options: dict[str, Any] = Field(default={})
    """Keyword options of the reward function."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds to score one completion; after that it counts as failed and gets no value."""
    max_failures: float = Field(default=0.1, ge=0, lt=1)
    """Share of completions on which it may fail before the job stops. Failures are exceptions, time-outs, crashes and
    NaN."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Options of the function in `rlassay.rewards.REWARDS` that scores."""
        if self.kind is None:
            return self.options
        return {"path": self.path, "batch": self.batch, "options": self.options}

    @property
    def guard_arguments(self) -> dict[str, Any]:
        """Arguments of `rlassay.rewards.sandbox.guard.guarded`, beside the name."""
        patience = {"timeout": self.timeout, "max_failures": self.max_failures}
        return {"options": self.arguments, "function": self.kind, **patience}


class Recipe(Section):
    """Everything that decides the trained weights of an arm, apart from data and seed."""

    model: ModelConfig
    """The policy before training."""
    sft: SFTConfig | None = None
    """The warm start; null starts RL from the model as it is."""
    rl: RLConfig
    """The reinforcement-learning stage."""
    rewards: dict[str, RewardConfig] = Field(min_length=1)
    """Rewards by name; at any time at least one has a weight other than 0."""
    credit: tuple[CreditConfig, ...] = (UniformCredit(kind="uniform"),)
    """Token-credit parts in order: filters are joined by OR, weights and scales multiply."""
    credit_denominator: Literal["all", "selected"] = "all"
    """Whether the loss is a mean over all completion tokens, or those that filters select."""
    entropy_penalty_coef: float = Field(default=0.0, ge=0)
    """Weight of the published entropy penalty, which reaches the loss through the advantages. It adds this times the
    mean -log p of the sampled tokens to the loss. It is not an entropy bonus of opposite sign, see
    `rlassay.credit.penalise_entropy`."""
    signals: SignalsConfig = SignalsConfig()
    """How to measure the signals that rewards and credit parts read."""

    @property
    def credit_lists(self) -> dict[str, tuple[CreditConfig, ...]]:
        """The lists of credit parts by path: of the advantages, and of the KL penalty."""
        return {"credit": self.credit, "rl.kl.credit": () if self.rl.kl is None else self.rl.kl.credit}

    @property
    def is_seq2seq(self) -> bool:
        """Whether the policy is an encoder-decoder."""
        model = self.model
        return model.architecture == "seq2seq" if model.kind == "hub" else model.kind == "tiny_seq2seq"

    @property
    def warm_start_model(self) -> ModelConfig:
        """The model as the warm start trains it."""
        lora = self.model.lora
        return self.model if lora is None or lora.in_warm_start else self.model.model_copy(update={"lora": None})

    @property
    def weight_phases(self) -> dict[str, tuple[Phase, ...]]:
        """Each reward's weight by phase of training: pairs (progress at which the weight begins, weight)."""
        share = early_steps(self.rl.max_steps, self.rl.warmup_steps) / self.rl.max_steps
        return {
            name: weight_phases(reward.weight, reward.early_weight, reward.schedule, share)
            for name, reward in self.rewards.items()
        }
