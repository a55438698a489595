"""Treatment of each field of TRL's `GRPOConfig` in the trainer and a study, for docs/grpo_config.md.

`CreditGRPOTrainer` takes every field as `trl.GRPOTrainer` does. A study sets some of them, the stage sets others, and
the rest keep TRL's defaults, each for a reason below. Run `python -m rlassay.training.grpo_options` to write the page.
"""

from dataclasses import fields
from pathlib import Path

from trl.trainer.grpo_config import GRPOConfig

from rlassay.config.engine import VLLMSampler
from rlassay.config.training import GRPOArguments
from rlassay.training.rl import vllm_arguments

PAGE = Path("docs/grpo_config.md")

OWNED = {
    "reward_weights": "from `rewards.<name>.weight`, its early weight and its schedule",
    "output_dir": "the run's `state/checkpoints`",
    "seed": "the run's own seed",
    "use_cpu": "true if the study has no GPU",
    "bf16": "`bf16` of the study; null is true on a GPU",
    "deepspeed": "null, or `src/rlassay/launch/<strategy>.json`, with `cpu_offload` also `cpu_offload.json`",
    "fsdp": "true if `strategy` is fsdp2",
    "fsdp_config": "`src/rlassay/launch/fsdp2.json`, `cpu_offload`, and the policy's layer classes",
    "top_k": "0: sampling is from the whole distribution or its nucleus, as entropy assumes",
    "min_p": "null, for the same reason",
    "repetition_penalty": "1.0, for the same reason",
    "generation_kwargs": "null, or the beams of `rl.beam_sampling`",
    "use_vllm": "true if `rl.engine` is vllm",
    "vllm_enable_sleep_mode": "true if `rl.engine.sleep_level` is 2",
    "vllm_importance_sampling_correction": "true: its pass measures the gap; `rl.engine` says whether ratios are used",
    "shuffle_dataset": "false: the order of the whole run is fixed beforehand, so that it resumes exactly",
    "disable_dropout": "false, TRL's default of this release, pinned",
    "top_entropy_quantile": "1.0: the credit part `entropy_filter` selects tokens",
    "off_policy_mask_threshold": "null, TRL's default of this release, pinned",
    "log_completions": "false: every completion is in the rollouts",
    "logging_steps": "1",
    "save_strategy": "steps",
    "save_total_limit": "2: the newest checkpoint and the one before",
    "dataloader_pin_memory": "true on a GPU",
    "report_to": "none: MLflow is fed from the files, and the stage adds the callbacks of `tracking.report_to`",
    "disable_tqdm": "true: the log has one line per step",
}
"""Fields that the RL stage sets, and their values."""

VLLM = sorted(set(vllm_arguments(VLLMSampler(kind="vllm"))) - set(OWNED))
"""Fields that a study sets in `rl.engine`, without their prefix."""

NOT_OFFERED = {
    "follows from the model section": "model_init_kwargs trust_remote_code cast_lm_head_to_fp32 router_aux_loss_coef "
    "gradient_checkpointing_kwargs use_cache",
    "one optimiser for all arms, so that arms differ in what they compare": "optim_args optim_target_modules "
    "adam_epsilon lr_scheduler_kwargs label_smoothing_factor neftune_noise_alpha "
    "average_tokens_across_devices",
    "steps count training, not epochs": "num_train_epochs",
    "follows from batch size, accumulation and steps_per_generation": "generation_batch_size pad_to_multiple_of",
    "evaluation is a stage of its own": "num_generations_eval eval_strategy eval_steps eval_delay eval_on_start "
    "per_device_eval_batch_size prediction_loss_only eval_do_concat_batches eval_use_gather_object "
    "eval_accumulation_steps include_for_metrics batch_eval_metrics bf16_full_eval fp16_full_eval "
    "load_best_model_at_end metric_for_best_model greater_is_better do_train do_eval do_predict",
    "a study has one way to render and to sample": "chat_template_kwargs cache_implementation "
    "max_tool_calling_iterations use_transformers_continuous_batching transformers_continuous_batching_config "
    "use_transformers_paged ds3_gather_for_generation",
    "vllm_server_base_url says where a server is; vLLM's own choice otherwise": "vllm_model_impl "
    "vllm_structured_outputs_regex vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port "
    "vllm_importance_sampling_cap",
    "the entropy bonus has a fixed weight, see entropy_coef": "use_adaptive_entropy entropy_coef_min "
    "entropy_coef_max entropy_coef_delta "
    "entropy_target",
    "precision and speed of the machine": "fp16 tf32 torch_compile_backend torch_compile_mode "
    "liger_kernel_config torch_empty_cache_steps auto_find_batch_size full_determinism "
    "accelerator_config parallelism_config ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers "
    "ddp_static_graph ddp_backend ddp_timeout local_rank",
    "the order of prompts is fixed beforehand": "data_seed dataloader_drop_last dataloader_num_workers "
    "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order "
    "remove_unused_columns label_names train_sampling_strategy length_column_name ignore_data_skip",
    "logs and checkpoints are the stage's own; no effect on training": "log_multimodal num_completions_to_print "
    "log_unique_prompts log_completions_hub_repo logging_strategy logging_first_step log_on_each_node "
    "logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica run_name project "
    "trackio_space_id trackio_bucket_id trackio_static_space_id save_only_model save_on_each_node "
    "enable_jit_checkpoint restore_callback_states_from_checkpoint push_to_hub hub_token hub_private_repo hub_model_id "
    "hub_strategy hub_always_push hub_revision debug skip_memory_metrics resume_from_checkpoint",
}
"""Reason -> fields that a study refuses as unknown keys, and that keep TRL's defaults."""

IN_THE_TRAINER = {
    "top_entropy_quantile": "refused below 1 beside the credit part `entropy_filter`",
    "reward_weights": "replaced during training by `weight_phases`, where these are given",
    "temperature": "also divides the logits of the signal pass",
    "chat_template_kwargs": "also renders the prompts of the signal pass",
    "pad_to_multiple_of": "also pads the prompts of the signal pass",
    "loss_type": '`credit_denominator="selected"` refuses dr_grpo and luspo',
    "per_device_train_batch_size": "also the completions per signal pass",
    "importance_sampling_level": "with `sequence`, uniform credit equals TRL up to rounding (1e-5) only",
}
"""Further uses of fields by `CreditGRPOTrainer`, which passes them through to TRL."""


def destinations() -> dict[str, str]:
    """Field of `GRPOConfig` -> its treatment in a study.

    Errors: ValueError unless every field has exactly one destination.
    """
    listed = [(name, f"`rl.{name}`") for name in GRPOArguments.model_fields]
    listed += [(name, f"`rl.engine.{name.removeprefix('vllm_')}`") for name in VLLM]
    listed += [(name, f"set by the stage: {value}") for name, value in OWNED.items()]
    listed += [(name, f"not offered: {reason}") for reason, names in NOT_OFFERED.items() for name in names.split()]
    known, names = [each.name for each in fields(GRPOConfig)], [name for name, _ in listed]
    wrong = sorted({name for name in {*known, *names} if names.count(name) != 1 or name not in known})
    if wrong:
        raise ValueError(f"fields of GRPOConfig without exactly one destination: {', '.join(wrong)}")
    found = dict(listed)
    return {name: found[name] for name in known}


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# TRL's `GRPOConfig`, field by field",
        "",
        "Written by `python -m rlassay.training.grpo_options`. `CreditGRPOTrainer` passes every field through to TRL;",
        "the second column lists its own uses of the field, the third the source of its value in a study.",
        "",
        "| field | `CreditGRPOTrainer` | a study |",
        "|---|---|---|",
    ]
    rows = destinations().items()
    lines += [f"| `{name}` | {IN_THE_TRAINER.get(name, 'passed through')} | {what} |" for name, what in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
