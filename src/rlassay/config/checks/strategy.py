"""Refuse settings that fail where each process holds a part of the policy.

They are refused before any job. A setting is also refused if nobody has tested that a killed run resumes exactly with
it: a refusal costs a user one edit, an incomplete checkpoint costs the run. Each setting refused here has failed, or
has not been tried, on two processes.
"""

import sys
from collections.abc import Iterator
from importlib.util import find_spec

from rlassay.config.study import Study
from rlassay.config.training import Recipe

WHOLE = "set strategy to ddp"
"""The remedy that always works."""


def strategy_can_run(study: Study) -> Iterator[str]:
    """There are processes to divide the policy between, and the library that divides it."""
    if study.strategy != "ddp" and study.num_processes == 1:
        yield (
            f"strategy: {study.strategy} divides the policy between processes, and each job has one; set gpus or "
            f"processes above 1, or {WHOLE}"
        )
    if study.strategy.startswith("deepspeed") and find_spec("deepspeed") is None:
        yield (
            f"strategy: {study.strategy}, but deepspeed is not installed in {sys.prefix}; run `pip install "
            f"'rlassay[deepspeed]'`, or set strategy to fsdp2 or ddp"
        )


def offload_can_run(study: Study) -> Iterator[str]:
    """There is a GPU, and a strategy that moves something off it."""
    if not study.cpu_offload:
        return
    if study.gpus == 0:
        yield (
            "cpu_offload: true, but gpus is 0, and it keeps in the machine's memory what would be on a GPU; set gpus, "
            "or false"
        )
    if study.strategy == "ddp":
        yield (
            "cpu_offload: true, but strategy is ddp, which keeps everything on each GPU; set strategy to fsdp2, "
            "deepspeed_zero2 or deepspeed_zero3, or cpu_offload to false"
        )


def strategy_fits(study: Study, recipe: Recipe) -> Iterator[str]:
    """No setting of the arm needs the whole policy in one process."""
    if study.strategy == "ddp":
        return
    by_deepspeed = _unfit_for_deepspeed(recipe) if study.strategy.startswith("deepspeed") else ()
    by_zero3 = _unfit_for_zero3(recipe) if study.strategy == "deepspeed_zero3" else ()
    for key, why in (*_unfit(recipe), *by_deepspeed, *by_zero3):
        yield f"{key}, but strategy is {study.strategy}, under which {why}; leave it out, or {WHOLE}"


def _unfit(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Settings with the reason why they need the whole policy."""
    rl = recipe.rl
    steps = rl.steps_per_generation * rl.num_iterations
    if recipe.model.lora is not None and recipe.model.lora.load_in_4bit:
        yield "model.lora.load_in_4bit: true", "weights in four bits have not been tried, which takes several GPUs"
    if rl.advantage.kind == "gae":
        yield "rl.advantage: gae", "checkpoints of its critic have not been tried"
    if recipe.is_seq2seq:
        yield "model: an encoder-decoder", "sampling from it has not been made to work"
    if rl.sync_ref_model:
        yield "rl.sync_ref_model: true", "checkpoints do not hold the reference policy"
    if steps % rl.gradient_accumulation_steps:
        yield (
            f"rl.gradient_accumulation_steps: {rl.gradient_accumulation_steps} does not divide steps_per_generation x "
            f"num_iterations, {steps}",
            "sampling in the middle of an optimiser step loses its gradients",
        )
    for name, section in (("sft", recipe.sft), ("rl", rl)):
        if section is not None and section.torch_compile:
            yield f"{name}.torch_compile: true", "a compiled policy is not divided"
        if section is not None and "8bit" in section.optim:
            yield f"{name}.optim: {section.optim}", "optimizer state in 8 bits is not divided"


def _unfit_for_deepspeed(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Settings that FSDP2 takes and DeepSpeed does not, with the reason."""
    rl = recipe.rl
    if rl.max_tokens_per_micro_batch is not None:
        yield f"rl.max_tokens_per_micro_batch: {rl.max_tokens_per_micro_batch}", "gradients are divided at each of them"
    if recipe.sft is not None and recipe.sft.activation_offloading:
        yield "sft.activation_offloading: true", "no test covers it, as it does ddp and fsdp2"


def _unfit_for_zero3(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Settings that DeepSpeed takes while it does not divide weights, with the reason."""
    if recipe.model.lora is not None:
        yield "model.lora", "adapters of a vision tower got no gradients (DeepSpeed 0.19.8)"
