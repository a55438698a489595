"""Check that a machine has the libraries, GPU and compiler that a study needs."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from shutil import which

from rlassay.config.model import HubModel
from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.config.training import Recipe, RLConfig, SFTConfig


def _quantised(study: Study, recipe: Recipe) -> Iterator[str]:
    """Weights in four bits have a GPU to run on, and the library for packing."""
    if not isinstance(recipe.model, HubModel) or not recipe.model.in_4bit:
        return
    yield from _lacking(study, "model.lora.load_in_4bit: true", "bitsandbytes", "false")


_FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Attention kernel -> its package."""


def _kernels(study: Study, recipe: Recipe) -> Iterator[str]:
    """An attention kernel has a GPU to run on, and its package."""
    if not isinstance(recipe.model, HubModel) or recipe.model.attn_implementation in ("sdpa", "eager"):
        return
    name = recipe.model.attn_implementation
    yield from _lacking(study, f"model.attn_implementation: {name}", _FLASH.get(name, "kernels"), "sdpa")


def _speed(study: Study, recipe: Recipe) -> Iterator[str]:
    """Options that other libraries carry out have a GPU and the library."""
    for section in ("sft", "rl"):
        chosen: SFTConfig | RLConfig | None = getattr(recipe, section)
        if chosen is None:
            continue
        if chosen.optim in ("adamw_bnb_8bit", "paged_adamw_8bit"):
            key = f"{section}.optim: {chosen.optim}"
            yield from _lacking(study, key, "bitsandbytes", "adamw_torch_fused")
        if chosen.use_liger_kernel:
            yield from _lacking(study, f"{section}.use_liger_kernel: true", "liger_kernel", "false")
        if chosen.torch_compile and not (which("g++") or which("clang++")):
            yield f"{section}.torch_compile: true, but there is no C++ compiler; install g++, or set false"
    if recipe.sft is not None and recipe.sft.activation_offloading and study.gpus == 0:
        yield "sft.activation_offloading: true, but gpus is 0, and it moves activations off a GPU; set gpus, or false"


def _lacking(study: Study, setting: str, package: str, instead: str) -> Iterator[str]:
    if study.gpus == 0:
        yield f"{setting}, but gpus is 0, and it needs a GPU; set gpus, or {instead}"
    if find_spec(package) is None:
        pip = _PIP.get(package, package)
        yield f"{setting}, but {pip} is not installed; run `pip install {pip}`, or set {instead}"


def missing_trackers(settings: Settings) -> list[str]:
    """The problems of `tracking.report_to`: trackers whose packages are not installed."""
    return [
        f"tracking.report_to: {name}, but it is not installed; run `pip install {name}`, or leave it out"
        for name in settings.tracking.report_to
        if name != "console" and find_spec(name) is None
    ]


_PIP = {"flash_attn": "flash-attn", "flash_attn_interface": "flash-attn-3", "liger_kernel": "liger-kernel"}
"""Package -> its name for pip, where they differ."""

MACHINE_CHECKS: list[Callable[[Study, Recipe], Iterator[str]]] = [_quantised, _kernels, _speed]
"""Each gives the problems of one recipe, one sentence each."""
