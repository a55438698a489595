"""The reinforcement-learning stage: GRPO on the `train` split from the arm's warm start."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig

from rlassay.config.fingerprints import code_digest, reads_signals
from rlassay.config.policies import Policy
from rlassay.config.settings import Diagnostics
from rlassay.config.study import Study
from rlassay.config.training import Recipe, RLConfig
from rlassay.credit import CREDITS, NEEDS, CreditPart
from rlassay.files import read_json, sha256
from rlassay.layout import Layout
from rlassay.models import build_policy, load_policy, peft_config, tokenizer_of, training_rows
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import wants_format_instruction
from rlassay.records import PromptRow, read_rows
from rlassay.rewards.sandbox.guard import guarded
from rlassay.rewards.weights import weight_at
from rlassay.signals import Masking
from rlassay.signals.measuring import SignalPlan
from rlassay.training.group_reward import GroupReward
from rlassay.training.prompts import prompt_dataset, prompt_order
from rlassay.training.readable_logs import readable_logs
from rlassay.training.rollouts import Rollout, ShardWriter, generated_tokens, rollout_table, watched_table
from rlassay.training.state import Run, RunPlan, open_run, require_gpus
from rlassay.training.trainer import CreditGRPOTrainer

CODE = "rlassay.training.rl"
KEPT_CHECKPOINTS = 2  # the newest, and the one to fall back on


def run_rl(study: Study, layout: Layout, policy: Policy, diagnostics: Diagnostics | None = None) -> None:
    """Train one arm with one seed, or go on with it after a kill; its sentinel `train.json` is written last.

    `diagnostics` says what is written for people to read; None takes its defaults. No result depends on it.

    Errors: ValueError for a policy that is no run, or whose warm start is not trained; RefusedError for fewer GPUs than
    the study declares, or while another process trains it.
    """
    # 1. Refuse what cannot succeed, and take the run directory.
    require_gpus(study.gpus)
    with open_run(layout, _plan(study, layout, policy)) as run:
        if run.finished:
            return
        # 2. The prompts, and the policy that is to answer them.
        recipe = policy.recipe
        rows = list(read_rows(layout.split("train")))
        model, processor = starting_policy(study, layout, policy, run.state / "start")
        arguments = grpo_arguments(recipe, _seed(policy), run.checkpoints, on_cpu=study.gpus == 0)
        batches = generation_batches(recipe.rl, arguments)
        order = prompt_order([row.prompt_id for row in rows], *batches, seed=_seed(policy))
        # 3. TRL's trainer, with our rewards and credit.
        trainer = CreditGRPOTrainer(
            model=model,
            reward_funcs=group_rewards(recipe, rows, end_token_ids(model, processor)),
            weight_phases=list(recipe.weight_phases.values()),
            args=arguments,
            train_dataset=prompt_dataset(
                rows, order, processor, layout.data, with_format_instruction=wants_format_instruction(recipe)
            ),
            processing_class=processor,
            peft_config=peft_config(recipe.model),
            credit=credit_parts(recipe),
            credit_denominator=recipe.credit_denominator,
            entropy_penalty=recipe.entropy_penalty_coef,
            signals=signal_plan(study, recipe, diagnostics or Diagnostics()),
            callbacks=[run.callback()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.xp_listeners += listeners(run, rows, diagnostics or Diagnostics())
        # 4. Train from where the last attempt got to, and declare the run finished.
        trainer.train(resume_from_checkpoint=run.resume_from)
        run.finish(trainer, generated_tokens(run.rollouts))


def credit_parts(recipe: Recipe) -> list[CreditPart]:
    """The arm's credit parts with their options; uniform credit is none, and has nothing to log."""
    sections = [part for part in recipe.credit if part.kind != "uniform"]
    return [partial(CREDITS[part.kind], **part.model_dump(exclude={"kind"})) for part in sections]


def signal_plan(study: Study, recipe: Recipe, diagnostics: Diagnostics) -> SignalPlan:
    """What is measured besides what the arm's own credit goes by: what other arms go by, so that they can be compared.

    Attention is measured if a reward reads it, if an arm's credit does, or if the settings ask for it.
    """
    attention, perception = recipe.signals.attention, recipe.signals.perception
    needed = {signal for arm in study.arms.values() for part in arm.recipe.credit for signal in NEEDS[part.kind]}
    return SignalPlan(
        also=frozenset(needed - {"draws"}),
        attention=reads_signals(study) or diagnostics.compute_attention_metrics,
        layers=attention.layers,
        dominance=attention.dominance,
        masking=Masking(**perception.model_dump(exclude={"estimator"})),
        estimator=perception.estimator,
        balance_ratio=diagnostics.mdi_balance_ratio,
    )


def listeners(run: Run, rows: Sequence[PromptRow], diagnostics: Diagnostics) -> list[Callable[[Rollout], None]]:
    """What keeps the rollouts: shards for the later stages, and Markdown for people."""
    kept: list[Callable[[Rollout], None]] = [
        ShardWriter(run.rollouts, rollout_table),
        ShardWriter(run.tokens, lambda rollout: watched_table(rollout.step, rollout.watched)),
    ]
    return kept + readable_logs(run.state, {row.prompt_id: row for row in rows}, diagnostics, run.resumed_step)


def starting_policy(study: Study, layout: Layout, policy: Policy, folder: Path) -> tuple[Model, Processor]:
    """The policy that RL begins with: the arm's warm start, or the model as it is.

    With a KL term TRL loads the reference model from where the policy came from, so that a model without a warm start
    is first saved to `folder`.
    """
    recipe = policy.recipe
    start = policy.start
    if start is not None and start.stage == "sft":
        return load_policy(recipe.model, layout.root / start.folder / _manifest(layout, start)["weights"])
    model, processor = build_policy(recipe.model, training_rows(layout))
    if recipe.rl.beta == 0:
        return model, processor
    model.save_pretrained(str(folder))
    processor.save_pretrained(folder)
    return load_policy(recipe.model, folder)


def group_rewards(recipe: Recipe, rows: Sequence[PromptRow], end_token_ids: Sequence[int]) -> list[GroupReward]:
    """The arm's rewards in TRL's signature, in the order of the study."""
    by_id = {row.prompt_id: row for row in rows}
    return [
        GroupReward(
            guarded(name, reward.options, timeout=reward.timeout, max_failures=reward.max_failures),
            rows=by_id,
            num_generations=recipe.rl.num_generations,
            end_token_ids=end_token_ids,
        )
        for name, reward in recipe.rewards.items()
    ]


def end_token_ids(model: Model, processor: Processor) -> list[int]:
    """Ids that end a completion, as TRL counts them: the model's, the tokenizer's and padding."""
    of_model = model.generation_config.eos_token_id
    tokenizer = tokenizer_of(processor)
    ends = [*(of_model if isinstance(of_model, list) else [of_model]), tokenizer.eos_token_id, tokenizer.pad_token_id]
    return sorted({each for each in ends if each is not None})


def grpo_arguments(recipe: Recipe, seed: int, checkpoints: Path, *, on_cpu: bool) -> GRPOConfig:
    """TRL's arguments for a recipe; whatever TRL changed between releases is said here and not left to its defaults."""
    rl: RLConfig = recipe.rl
    as_written = rl.model_dump()  # its keys are TRL's
    return GRPOConfig(
        **as_written,
        reward_weights=[weight_at(phases, 0.0) for phases in recipe.weight_phases.values()],
        output_dir=str(checkpoints),
        seed=seed,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        use_vllm=False,
        shuffle_dataset=False,  # the data set has the run's whole order
        disable_dropout=False,
        top_entropy_quantile=1.0,
        entropy_coef=0.0,
        off_policy_mask_threshold=None,
        log_completions=False,
        logging_steps=1,
        save_strategy="steps",
        save_total_limit=KEPT_CHECKPOINTS,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=True,
    )


def generation_batches(rl: RLConfig, arguments: GRPOConfig) -> tuple[int, int]:
    """Prompts per generation batch, and generation batches of the whole run."""
    completions = arguments.generation_batch_size
    assert completions is not None  # TRL has computed it, over all processes
    micro_batches = rl.max_steps * rl.gradient_accumulation_steps
    return completions // rl.num_generations, math.ceil(micro_batches / (rl.steps_per_generation * rl.num_iterations))


def _plan(study: Study, layout: Layout, policy: Policy) -> RunPlan:
    if policy.stage != "rl":
        raise ValueError(f"{policy.folder} is not a run of an arm")
    inputs = {"code": code_digest(CODE), "train": sha256(layout.split("train"))}
    start = policy.start
    if start is not None and start.stage == "sft":
        inputs |= {f"warm_start/{name}": digest for name, digest in _manifest(layout, start)["sha256"].items()}
    return RunPlan(
        policy=policy.folder,
        stage="rl",
        arm=policy.arm,
        seed=_seed(policy),
        max_steps=policy.recipe.rl.max_steps,
        gpus=study.gpus,
        fingerprint=policy.fingerprint,
        inputs=inputs,
    )


def _manifest(layout: Layout, warm_start: Policy) -> dict[str, Any]:
    path = layout.train_manifest(warm_start.folder, warm_start.stage)
    manifest = read_json(path)
    if manifest is None:
        raise ValueError(f"{warm_start.folder} is not trained yet: there is no {path}")
    return manifest


def _seed(policy: Policy) -> int:
    assert policy.seed is not None  # a run of an arm always has one
    return policy.seed
