# pyright: basic
# (accelerate has no types, and TRL leaves most attributes of a trainer open)
"""Strategies for training on several processes: a whole policy in each, or a divided one.

DDP keeps the whole policy in each process. FSDP2 and ZeRO-3 divide weights, gradients and optimizer state in training,
ZeRO-2 all but the weights. For sampling and for measuring signals every process gathers the whole weights once: its
passes then need no other process, so that processes may run different numbers of them.
"""

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from importlib.resources import files
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.models.utils import add_hooks, remove_hooks

from rlassay.training.process import restorable


def strategy_arguments(
    strategy: str, model: Any, *, bf16: bool | None = None, cpu_offload: bool = False
) -> dict[str, Any]:
    """The fields of `TrainingArguments` for a strategy and its options; none for DDP without options.

    Args:
        strategy: name of a file of settings in `rlassay/launch`, or `ddp`.
        model: the policy, whose layers are the units that processes gather one at a time.
        bf16: whether training computes in bfloat16; None leaves it open.
        cpu_offload: whether the settings of `rlassay/launch/cpu_offload.json` are added.
    """
    precision = {} if bf16 is None else {"bf16": bf16}
    if strategy == "ddp":
        return precision
    settings = _settings(strategy)
    if cpu_offload:
        for key, added in _settings("cpu_offload")[strategy].items():
            settings[key] = {**settings[key], **added} if isinstance(added, dict) else added
    if strategy.startswith("deepspeed"):
        return {**precision, "deepspeed": settings}
    # A model's own list also names layers of relatives, such as those of CLIP's text side, which accelerate refuses.
    units = {type(each).__name__ for each in model.modules()} & set(model._no_split_modules or ())
    wrapped = {**settings, "transformer_layer_cls_to_wrap": sorted(units)}
    return {**precision, "fsdp": True, "fsdp_config": wrapped}


def with_precision(arguments: Mapping[str, Any] | None, *, on_cpu: bool) -> dict[str, Any]:
    """Fields of `TrainingArguments`; unless they set `bf16`, it is true on GPUs and false on CPUs."""
    return {"bf16": not on_cpu, **(arguments or {})}


def _settings(name: str) -> dict[str, Any]:
    """The content of a settings file in `rlassay/launch`."""
    return json.loads((files("rlassay") / "launch" / f"{name}.json").read_text(encoding="utf-8"))


def strategy_libraries(strategy: str) -> tuple[str, ...]:
    """The libraries that a strategy needs, besides those of every job."""
    return ("deepspeed",) if strategy.startswith("deepspeed") else ()


def allow_on_cpu(arguments: TrainingArguments) -> None:
    """Have accelerate divide weights on CPUs too, where it silently uses DDP; call it before the trainer's init.

    Args:
        arguments: of the trainer, which have made accelerate's record of the processes.
    """
    processes: Any = arguments.distributed_state
    if arguments.deepspeed and processes.device.type == "cpu":
        join_by_gloo(processes)
    if arguments.fsdp and processes.distributed_type == DistributedType.MULTI_CPU:
        # The accelerator chooses FSDP only for several GPUs, whatever the actual device is.
        processes.distributed_type = DistributedType.MULTI_GPU


def join_by_gloo(processes: Any) -> None:
    """Have DeepSpeed join the processes of a job on CPUs; on GPUs accelerate does so.

    Otherwise, when TRL gives it the reference policy, DeepSpeed assumes that each process is the only one.

    Args:
        processes: accelerate's record of them, made by `TrainingArguments`.
    """
    os.environ.pop("ACCELERATE_USE_CPU", None)  # with it the accelerator, made next, drops DeepSpeed's settings
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # pyright: ignore[reportMissingImports]

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # DeepSpeed would first compile it for a minute
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    processes.distributed_type = DistributedType.DEEPSPEED


def checked(trainer: Any, strategy: str) -> Any:
    """Make a trainer load its checkpoints, save whole models and train by this strategy only; returns it."""
    trainer.add_callback(StrategyCheck(strategy, trainer))
    if trainer.is_fsdp_enabled:
        trainer.save_model = partial(_save_whole, trainer, trainer.save_model)
    if trainer.is_deepspeed_enabled:
        trainer.save_model = partial(_save_merged, trainer, trainer.save_model)
    return restorable(trainer)


def _save_whole(
    trainer: Any, save: Callable[..., None], output_dir: str | None = None, _internal_call: bool = False
) -> None:
    """Save a whole model, for `from_pretrained`; in a checkpoint (an internal call), each process saves its part.

    Whole checkpoints would have one process hold the optimizer state of all.
    """
    plugin = trainer.accelerator.state.fsdp_plugin
    in_parts = plugin.state_dict_type
    if not _internal_call:
        plugin.set_state_dict_type("FULL_STATE_DICT")
    try:
        save(output_dir, _internal_call)
    finally:
        plugin.set_state_dict_type(in_parts)


def _save_merged(
    trainer: Any, save: Callable[..., None], output_dir: str | None = None, _internal_call: bool = False
) -> None:
    """Save a model through DeepSpeed's engine, or directly if its adapters were merged.

    The engine still has the model with adapters, under whose names transformers would save the merged weights.
    """
    if trainer.model is trainer.accelerator.unwrap_model(trainer.model_wrapped):
        save(output_dir, _internal_call)
    elif trainer.args.should_save:
        trainer._save(output_dir)


class StrategyCheck(TrainerCallback):
    """Refuses to train unless the model is divided as the study declares; makes its checkpoints loadable.

    Errors (when training begins): RuntimeError with the declared and the actual kind of model.
    """

    def __init__(self, strategy: str, trainer: Any) -> None:
        self.strategy, self.trainer = strategy, trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = self.trainer.model_wrapped
        found = strategy_of(model)
        if found != self.strategy:
            raise RuntimeError(
                f"strategy: {self.strategy}, but the model is a {type(model).__name__}, which is trained by {found}: "
                "accelerate has not divided it as asked; take the versions of constraints.txt, or set strategy to ddp"
            )
        if found == "fsdp2":
            fill_state(kwargs["optimizer"].optimizer)
            gather_head(model)


def strategy_of(model: Any) -> str:
    """The strategy of a model that accelerate has prepared."""
    parts = list(model.parameters())
    stage = zero_stage(model)
    if stage is not None:
        divided = stage < 3 or all(hasattr(each, "ds_id") for each in parts)
        return f"deepspeed_zero{stage}" if divided else "ZeRO in part"
    if isinstance(model, FSDPModule):
        return "fsdp2" if all(isinstance(each, DTensor) for each in parts) else "FSDP2 in part"
    return "ddp"


def zero_stage(model: Any) -> int | None:
    """The stage of ZeRO that divides a model; None where DeepSpeed does not train it."""
    deepspeed: Any = sys.modules.get("deepspeed")
    is_engine = deepspeed is not None and isinstance(model, deepspeed.DeepSpeedEngine)
    return model.zero_optimization_stage() if is_engine else None


def gather_head(model: Any) -> None:
    """Have every forward pass gather the head's weights, if FSDP2 divides them separately.

    They are then a unit of their own. TRL's loss reads these weights without calling the head. If they were still
    divided, each process would train its part with the gradients of its own completions alone.
    """
    head = model.get_output_embeddings()
    if isinstance(head, FSDPModule):
        model.register_forward_pre_hook(lambda *_: head.unshard())


def fill_state(optimizer: torch.optim.Optimizer) -> None:
    """Initialise AdamW's state, zeros, for every parameter without one; other optimizers are not changed.

    Otherwise a parameter that never gets a gradient has no state in a checkpoint, which torch then refuses to load.
    """
    for group in optimizer.param_groups if isinstance(optimizer, torch.optim.AdamW) else []:
        for parameter in group["params"]:
            if parameter.requires_grad and not optimizer.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                on = parameter.device if group["fused"] else None
                optimizer.state[parameter] = {"step": torch.zeros((), device=on), **zeros}


@contextmanager
def whole_weights(trainer: Any) -> Generator[None, None, None]:
    """In the body this process has the whole weights; all processes enter and leave it together.

    It does nothing if the weights are whole anyway.
    """
    if zero_stage(trainer.model_wrapped) == 3:
        with _gathered_by_deepspeed(trainer):
            yield
        return
    parts = [each for each in trainer.model_wrapped.modules() if isinstance(each, FSDPModule)]
    if not parts:
        yield
        return
    model, *others = parts  # the model itself comes first
    model.set_reshard_after_forward(False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        model.reset_iter_state()  # divides them again, and forgets the order of these passes
        for part in others:  # not the model's own weights, which the backward pass needs first
            part.set_reshard_after_forward(True, recurse=False)


@contextmanager
def _gathered_by_deepspeed(trainer: Any) -> Generator[None, None, None]:
    import deepspeed  # pyright: ignore[reportMissingImports]

    engine = trainer.model_wrapped
    trainer.args.ds3_gather_for_generation = False  # TRL would divide them again once it has sampled
    with deepspeed.zero.GatheredParameters(list(engine.parameters())):
        remove_hooks(engine)
        try:
            yield
        finally:
            add_hooks(engine)


def with_whole_weights(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a trainer to run within `whole_weights`."""

    @wraps(method)
    def gathered(trainer: Any, *args: Any) -> Any:
        with whole_weights(trainer):
            return method(trainer, *args)

    return gathered
