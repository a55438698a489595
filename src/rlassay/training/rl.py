"""The reinforcement-learning stage: GRPO on the `train` split from the arm's warm start."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from trl.trainer.grpo_config import GRPOConfig

from rlassay.advantages import ADVANTAGES, AdvantageEstimator
from rlassay.config.credit import CreditConfig
from rlassay.config.engine import RLEngine, VLLMSampler, on_server
from rlassay.config.fingerprints import code_digest, reads_signals
from rlassay.config.model import HubModel
from rlassay.config.policies import Policy
from rlassay.config.settings import Diagnostics, Trackers
from rlassay.config.study import Study
from rlassay.config.training import GRPOArguments, Recipe, RLConfig
from rlassay.credit import CREDITS, NEEDS, CreditPart
from rlassay.divergence import AdaptiveBeta, FixedBeta
from rlassay.files import read_json, sha256
from rlassay.images import StudyImages
from rlassay.layout import Layout
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import build_policy, chat_format, end_token_ids, load_policy, peft_config, training_rows
from rlassay.models.seq2seq import is_encoder_decoder
from rlassay.models.tuning import freeze
from rlassay.ranks import is_main
from rlassay.records import PromptRow, read_rows
from rlassay.rewards.sandbox.guard import guarded
from rlassay.rewards.weights import weight_at
from rlassay.signals import Masking
from rlassay.signals.measuring import SignalPlan
from rlassay.training.algorithms.choice import GroupPlan
from rlassay.training.algorithms.collapse_guard import CollapseGuard
from rlassay.training.algorithms.critic import CriticOptions
from rlassay.training.algorithms.dynamic_sampling import DynamicSampling
from rlassay.training.algorithms.kl_control import KLControl
from rlassay.training.algorithms.replay import Replay
from rlassay.training.group_reward import GroupReward
from rlassay.training.job_callback import KeepIntermediate, add_trackers
from rlassay.training.process import join_processes, require_gpus, wait_for_all
from rlassay.training.prompts import prompt_dataset, prompt_order
from rlassay.training.readable_logs import readable_logs
from rlassay.training.rollouts import Rollout, ShardWriter, generated_tokens, rollout_table, token_table
from rlassay.training.scale.strategy import (
    allow_on_cpu,
    checked,
    strategy_arguments,
    strategy_libraries,
    with_precision,
)
from rlassay.training.seq2seq import Seq2SeqGRPOTrainer
from rlassay.training.state import Run, RunPlan, open_run
from rlassay.training.trainer import CreditGRPOTrainer
from rlassay.training.vllm.room import require_room_for_all
from rlassay.training.vllm.sampler import VLLMPlan
from rlassay.training.vllm.server import group_port, sampling_server

CODE = "rlassay.training.rl"
DIAGNOSTICS = Diagnostics()
KEPT_CHECKPOINTS = 2  # the newest, and the one before as its fallback


def run_rl(
    study: Study, layout: Layout, policy: Policy, diagnostics: Diagnostics = DIAGNOSTICS, report_to: Trackers = ()
) -> None:
    """Train one arm with one seed, or resume it after a kill; its manifest `train.json` is written last.

    `diagnostics` chooses the logs for people, and `report_to` the trackers; neither changes any result.

    Errors: ValueError for a policy that is not a run, or whose warm start is not trained; RefusedError for fewer GPUs
    than the study declares, or while another process trains it; StudyError for prompts that leave vLLM no room.
    """
    # 1. Refuse a job that cannot succeed, and lock the run directory and its vLLM server.
    require_gpus(study.gpus)
    join_processes(study.num_processes, on_cpu=study.gpus == 0)
    recipe, plan = policy.recipe, _plan(study, layout, policy)
    with open_run(layout, plan) as run, sampling_server(recipe.rl.engine, run, layout.root.parent):
        if run.finished:
            return
        # 2. The prompts by id, and the policy that answers them.
        rows = {row.prompt_id: row for row in read_rows(layout.split("train"))}
        model, processor = starting_policy(layout, policy, diagnostics, run.state / "start")
        freeze(model, recipe.rl.tune)
        arguments = _arguments(study, policy, model, run.checkpoints)
        order = prompt_order(list(rows), *generation_batches(recipe.rl, arguments), seed=_seed(policy))
        guard = collapse_guard(recipe.rl)
        # 3. TRL's trainer, with our rewards and credit.
        seq2seq = is_encoder_decoder(model)
        trainer_class = Seq2SeqGRPOTrainer if seq2seq else CreditGRPOTrainer
        adapters = None if isinstance(model, PeftModel) else peft_config(recipe.model, recipe.rl.tune, seq2seq=seq2seq)
        trainer: Any = trainer_class(
            model=model,
            reward_funcs=group_rewards(recipe, rows, model, processor),
            args=arguments,
            train_dataset=prompt_dataset(rows, order, chat_format(processor, recipe), StudyImages(layout.data)),
            processing_class=processor,
            peft_config=adapters,
            **_plug_ins(study, recipe, diagnostics),
            callbacks=[run.callback(), *([guard] if guard else [])],
        )
        add_trackers(checked(trainer, study.strategy), report_to, run, study.id)
        trainer.xp_stateful |= {"guard": guard} if guard else {}
        trainer.xp_listeners += listeners(run, rows, diagnostics)
        _keep_intermediate(trainer, study, layout.intermediate(policy.folder))
        require_room_for_all(study, layout, policy, model, processor, trainer)
        # 4. Train from the newest checkpoint, and write the manifest.
        trainer.train(resume_from_checkpoint=run.resume_from)
        run.finish(trainer, generated_tokens(run.rollouts), None if guard is None else guard.collapse)


def _keep_intermediate(trainer: Any, study: Study, folder: Path) -> None:
    """Have the trainer keep weights for the held-out curve, if the study has one."""
    if study.evaluation.every is not None:
        trainer.add_callback(KeepIntermediate(folder, study.evaluation.every, trainer.save_model))


def _plug_ins(study: Study, recipe: Recipe, diagnostics: Diagnostics) -> dict[str, Any]:
    """Arguments of `CreditGRPOTrainer` that TRL's trainer lacks."""
    return {
        "weight_phases": list(recipe.weight_phases.values()),
        "advantage": advantage_estimator(recipe.rl),
        "critic": critic_options(recipe.rl),
        "groups": group_plan(recipe.rl),
        "max_tokens_per_micro_batch": recipe.rl.max_tokens_per_micro_batch,
        "kl": kl_control(recipe, diagnostics),
        "credit": credit_parts(recipe),
        "credit_denominator": recipe.credit_denominator,
        "entropy_penalty": recipe.entropy_penalty_coef,
        "signals": signal_plan(study, recipe, diagnostics),
        "vllm": vllm_plan(recipe),
        "common_random_numbers": recipe.rl.common_random_numbers,
    }


def credit_parts(recipe: Recipe) -> list[CreditPart]:
    """The arm's credit parts with their options; uniform credit is no part, and logs nothing."""
    return parts_of(part for part in recipe.credit if part.kind != "uniform")


def parts_of(sections: Iterable[CreditConfig]) -> list[CreditPart]:
    """Credit parts with their options."""
    return [partial(CREDITS[part.kind], **part.model_dump(exclude={"kind"})) for part in sections]


def advantage_estimator(rl: RLConfig) -> AdvantageEstimator | None:
    """The arm's advantage estimator with its options; None for `grpo`, which TRL computes itself, and for `gae`."""
    section = rl.advantage
    if section.kind in ("grpo", "gae"):
        return None
    return partial(ADVANTAGES[section.kind], **section.model_dump(exclude={"kind"}))


def critic_options(rl: RLConfig) -> CriticOptions | None:
    """The options of the arm's critic; None unless its advantages are those of `gae`."""
    section = rl.advantage
    return CriticOptions(**section.model_dump(exclude={"kind"})) if section.kind == "gae" else None


def group_plan(rl: RLConfig) -> GroupPlan:
    """The arm's choice of the completions that train."""
    sampling, replay = rl.dynamic_sampling, rl.replay
    return GroupPlan(
        dynamic_sampling=None if sampling is None else DynamicSampling(**sampling.model_dump()),
        replay=None if replay is None else Replay(**replay.model_dump()),
        train_on=rl.train_on,
    )


def kl_control(recipe: Recipe, diagnostics: Diagnostics) -> KLControl | None:
    """The arm's KL penalty, or the measurement of the KL alone; None leaves it to TRL's `beta`."""
    rl, section = recipe.rl, recipe.rl.kl
    if section is None:
        return KLControl(FixedBeta(0.0)) if measures_kl(recipe, diagnostics) else None
    choice = section.controller
    if choice.kind == "fixed":
        return KLControl(FixedBeta(rl.beta), section.kind, section.where, credit=parts_of(section.credit))
    controller = AdaptiveBeta(rl.beta, choice.target, choice.horizon)
    return KLControl(controller, section.kind, section.where, choice.per, parts_of(section.credit))


def measures_kl(recipe: Recipe, diagnostics: Diagnostics) -> bool:
    """Whether the KL of an arm without a penalty is measured."""
    if recipe.rl.beta != 0 or recipe.rl.kl is not None:
        return False
    asked, model = diagnostics.compute_kl_metrics, recipe.model
    return (model.kind != "hub" or model.lora is not None) if asked is None else asked


def collapse_guard(rl: RLConfig) -> CollapseGuard | None:
    """The arm's rules for ending a run early; None without any."""
    return None if rl.guard is None else CollapseGuard(rl.guard.limits, rl.guard.patience)


def signal_plan(study: Study, recipe: Recipe, diagnostics: Diagnostics) -> SignalPlan:
    """The signals to measure, and how.

    Signals that the credit of any arm needs are measured in every arm, so that arms can be compared. Attention is
    measured if a reward or the credit of an arm reads it, or if the settings enable it.
    """
    attention, perception = recipe.signals.attention, recipe.signals.perception
    lists = [parts for arm in study.arms.values() for parts in arm.recipe.credit_lists.values()]
    needed = {signal for parts in lists for part in parts for signal in NEEDS[part.kind]}
    return SignalPlan(
        also=frozenset(needed - {"draws"}),
        attention=reads_signals(study) or diagnostics.compute_attention_metrics,
        layers=attention.layers,
        dominance=attention.dominance,
        masking=Masking(**perception.model_dump(exclude={"estimator", "mask_per"})),
        mask_per=perception.mask_per,
        estimator=perception.estimator,
        balance_ratio=diagnostics.mdi_balance_ratio,
    )


def listeners(run: Run, rows: Mapping[str, PromptRow], diagnostics: Diagnostics) -> list[Callable[[Rollout], None]]:
    """The writers of rollouts: parquet shards for the later stages, and Markdown for people."""
    if not is_main():  # it takes part in gathering the rollout, and the main process writes it
        return [lambda rollout: None]
    shards: list[Callable[[Rollout], None]] = [
        ShardWriter(run.rollouts, rollout_table),
        ShardWriter(run.tokens, token_table),
    ]
    return shards + readable_logs(run.state, rows, diagnostics, run.resumed_step)


def starting_policy(layout: Layout, policy: Policy, diagnostics: Diagnostics, folder: Path) -> tuple[Model, Processor]:
    """The policy from which RL starts: the arm's warm start, or the untrained model.

    A model without a warm start is first saved to `folder` where TRL needs its path: to load the reference model of the
    KL, to read the sizes of a built-in model for vLLM, and as the base that saved adapters name. Adapters on a hub
    model need no copy: the model without them is the reference.
    """
    recipe = policy.recipe
    start = policy.start
    if start is not None and start.stage == "sft":
        weights = layout.root / start.folder / _manifest(layout, start)["weights"]
        return load_policy(recipe.model, weights, trainable=True)
    model, processor = build_policy(recipe.model, training_rows(layout))
    with_reference = recipe.rl.beta != 0 or recipe.rl.kl is not None or measures_kl(recipe, diagnostics)
    if recipe.model.kind == "hub":
        reads_path = with_reference and recipe.model.lora is None
    else:
        reads_path = with_reference or recipe.rl.engine.kind == "vllm" or recipe.model.lora is not None
    if not reads_path:
        return model, processor
    if is_main():
        for part in (model, processor):
            saved: Any = part
            saved.save_pretrained(str(folder))
    wait_for_all()
    return load_policy(recipe.model, folder)


def group_rewards(
    recipe: Recipe, rows: Mapping[str, PromptRow], model: Model, processor: Processor
) -> list[GroupReward]:
    """The arm's rewards in TRL's signature, in the order of the study."""
    prefilled = chat_format(processor, recipe).prefilled
    ends = end_token_ids(model, processor, padding=True)  # with padding, so that `finished` is as TRL counts it
    return [
        GroupReward(
            guarded(name, **reward.guard_arguments),
            rows=rows,
            num_generations=recipe.rl.num_generations,
            end_token_ids=ends,
            prefilled=prefilled,
        )
        for name, reward in recipe.rewards.items()
    ]


def _arguments(study: Study, policy: Policy, model: Model, checkpoints: Path) -> GRPOConfig:
    """TRL's arguments for a run, its strategy included."""
    shared = strategy_arguments(study.strategy, model, bf16=study.bf16, cpu_offload=study.cpu_offload)
    arguments = grpo_arguments(policy.recipe, _seed(policy), checkpoints, shared, on_cpu=study.gpus == 0)
    allow_on_cpu(arguments)
    return arguments


def grpo_arguments(
    recipe: Recipe, seed: int, checkpoints: Path, shared: Mapping[str, Any] | None = None, *, on_cpu: bool
) -> GRPOConfig:
    """TRL's arguments for a recipe; arguments whose default TRL changed between releases are all set here."""
    return GRPOConfig(
        **{name: getattr(recipe.rl, name) for name in GRPOArguments.model_fields},
        reward_weights=[weight_at(phases, 0.0) for phases in recipe.weight_phases.values()],
        generation_kwargs=beam_sampling(recipe.rl),
        **vllm_arguments(recipe.rl.engine),
        **with_precision(shared, on_cpu=on_cpu),
        output_dir=str(checkpoints),
        seed=seed,
        use_cpu=on_cpu,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        shuffle_dataset=False,  # the dataset is in the order of the whole run
        disable_dropout=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        log_completions=False,
        logging_steps=1,
        save_strategy="steps",
        save_total_limit=KEPT_CHECKPOINTS,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=True,
    )


def vllm_arguments(engine: RLEngine) -> dict[str, Any]:
    """TRL's arguments for an engine. The correction is always on, since its pass measures the gap, see `VLLMPlan`."""
    if not isinstance(engine, VLLMSampler):
        return {"use_vllm": False}
    passed = engine.model_dump(exclude={"kind", "sleep_level", *VLLMPlan.__dataclass_fields__})
    of_server = {} if on_server(engine) is None else {"vllm_group_port": group_port()}
    return of_server | {
        "use_vllm": True,
        "vllm_enable_sleep_mode": engine.sleep_level > 0,
        "vllm_importance_sampling_correction": True,
        **{f"vllm_{name}": value for name, value in passed.items()},
    }


def vllm_plan(recipe: Recipe) -> VLLMPlan | None:
    """Settings of vLLM for which TRL has no argument; None for another engine."""
    engine = recipe.rl.engine
    if not isinstance(engine, VLLMSampler):
        return None
    return VLLMPlan(
        dtype=recipe.model.dtype if isinstance(recipe.model, HubModel) else "float32",
        enable_prefix_caching=engine.enable_prefix_caching,
        load_format="dummy",
        importance_sampling_correction=engine.importance_sampling_correction,
        max_logp_difference=engine.max_logp_difference,
    )


def beam_sampling(rl: RLConfig) -> dict[str, int] | None:
    """Generation arguments for sampling a whole group from one beam search; None samples independently."""
    return {"num_beams": rl.num_generations, "num_return_sequences": rl.num_generations} if rl.beam_sampling else None


def generation_batches(rl: RLConfig, arguments: GRPOConfig) -> tuple[int, int]:
    """Prompts per generation batch, and number of generation batches of the run."""
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
        libraries=libraries(study, policy.recipe),
        fingerprint=policy.fingerprint,
        inputs=inputs,
    )


def libraries(study: Study, recipe: Recipe) -> tuple[str, ...]:
    """The libraries that sample and train a run, besides those of every run."""
    return (*strategy_libraries(study.strategy), *(("vllm",) if recipe.rl.engine.kind == "vllm" else ()))


def _manifest(layout: Layout, warm_start: Policy) -> dict[str, Any]:
    path = layout.train_manifest(warm_start.folder, warm_start.stage)
    manifest = read_json(path)
    if manifest is None:
        raise ValueError(f"{warm_start.folder} is not trained yet: there is no {path}")
    return manifest


def _seed(policy: Policy) -> int:
    assert policy.seed is not None  # a run of an arm always has one
    return policy.seed
