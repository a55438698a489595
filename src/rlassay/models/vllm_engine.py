"""vLLM: its process, the models that it loads, and its prompts.

Importing this module loads neither vLLM nor torch. `set_environment` has to come before anything imports vLLM, and TRL
imports it where it is installed.
"""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

NEVER = -100.0
"""Logit bias of a token that must not be sampled; the lowest that vLLM takes."""
SAMPLER_GAP = "sampling/sampling_logp_difference/mean"
"""TRL's metric of a step: mean absolute log-prob difference of vLLM and trainer, nats. It is over sampled tokens."""
RENAMED = ("llava",)
"""Model types whose layers have other names in transformers than in vLLM, see `vllm_name`."""
VIDEO_TYPES = ("qwen3_vl",)
"""Model types whose clips vLLM and transformers process in the same way."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM can be set to."""
_KV_CACHE = "VLLM_CPU_KVCACHE_SPACE"
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # all in this process
    _KV_CACHE: "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # jobs side by side would be bound to the same cores
    "TORCHDYNAMO_DISABLE": "1",  # compiling a small model takes longer than its job
}
"""Environment of vLLM without GPUs; variables that are set already stay."""
EVERYWHERE = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a job may have used its GPU before it forks
}


def is_installed() -> bool:
    """Whether vLLM can be imported here."""
    return find_spec("vllm") is not None


def vllm_module(name: str = "") -> Any:
    """vLLM, or a module of it, without types.

    It is not installed where types are checked.
    """
    return import_module(f"vllm.{name}" if name else "vllm")


def set_environment(*, on_cpu: bool) -> None:
    """Set vLLM's environment variables, before anything imports it."""
    for name, value in (EVERYWHERE | ON_CPU if on_cpu else EVERYWHERE).items():
        os.environ.setdefault(name, value)


def kv_cache_mib() -> int:
    """MiB that vLLM without GPUs reserves for keys and values.

    The job inherits this process's environment.
    """
    return int(float(os.environ.get(_KV_CACHE, ON_CPU[_KV_CACHE])) * 1024)


@contextmanager
def trainable_on_cpu(*, on_cpu: bool) -> Generator[None, None, None]:
    """Within it vLLM on CPU opens models as TRL needs them.

    - Their weights can be loaded again, as after each step. vLLM packs them for oneDNN's kernels otherwise.
    - Processes that share a copy exchange its parts by gloo. vLLM's shared memory would have one name for all jobs on a
      machine that TRL starts, and outlive them, so that the second such job could not make its own.
    """
    if not on_cpu:
        yield
        return
    ops = vllm_module("_custom_ops")
    exchange = vllm_module("distributed.device_communicators.cpu_communicator").CpuCommunicator

    def share_no_memory(_: Any) -> bool:
        return False

    patches: list[tuple[Any, str, Any]] = [
        (ops, "_supports_onednn", False),
        (exchange, "_all_group_ranks_share_shm_group_name", share_no_memory),
    ]
    with ExitStack() as restored:
        for owner, name, value in patches:
            restored.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


@dataclass(frozen=True, kw_only=True)
class Served:
    """A policy as vLLM loads it."""

    model: str
    """Hub name or folder of the whole weights."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    adapter: Path | None = None
    """Folder of the adapter on top of them; None for whole weights."""
    rank: int = 0
    """Rank of the adapter."""


def served(
    model: Any, processor: Any, *, name: str | None, weights: Path | None, revision: str | None, copy: Path
) -> Served:
    """A policy in a form that vLLM can load.

    It is the folder as it is, or a copy with vLLM's names. An adapter of the language model alone is applied by vLLM.
    One that also changes the vision tower, which vLLM would leave out, is merged into a copy.

    Args:
        model: the policy, loaded by transformers.
        processor: its processor or tokenizer.
        name: hub name or folder of a model that is not trained, or folder of its adapter; None for a built-in model.
        weights: folder of trained weights or of an adapter; None before training.
        revision: of `name` on the hub.
        copy: an empty folder for the copy.
    """
    adapters: dict[str, Any] = getattr(model, "peft_config", {})
    if adapters and (folder := weights or name) is not None:  # a reference may be named by its adapter's folder
        adapter = adapters["default"]
        base = str(adapter.base_model_name_or_path)
        if _language_model_alone(model):
            of_base = revision if base == name else None
            return Served(model=base, revision=of_base, adapter=Path(folder), rank=int(adapter.r))
        model = model.merge_and_unload()
    elif model.config.model_type not in RENAMED:
        if weights is not None:
            return Served(model=str(weights))
        if name is not None:
            return Served(model=name, revision=revision)
    _save_copy(model, processor, copy)
    return Served(model=str(copy))


def _save_copy(model: Any, processor: Any, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    renamed = model.config.model_type in RENAMED
    tensors = {vllm_name(name) if renamed else name: each.detach() for name, each in model.named_parameters()}
    safetensors: Any = import_module("safetensors.torch")
    safetensors.save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "model.safetensors")
    model.config.architectures = [type(model).__name__]  # a model that was never saved has none yet
    for part in (model.config, model.generation_config, processor):
        part.save_pretrained(str(folder))


def vllm_name(name: str) -> str:
    """vLLM's name for a parameter of a model in `RENAMED`; transformers has the vision tower without one level."""
    return name.replace("vision_tower.", "vision_tower.vision_model.", 1)


def _language_model_alone(model: Any) -> bool:
    """Whether adapters change neither vision tower nor connector."""
    changed = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    is_vlm = hasattr(model.config, "vision_config")
    return not is_vlm or all("language_model" in name for name in changed)


def open_llm(policy: Served, *, dtype: str, on_cpu: bool, batch_size: int, **options: Any) -> Any:
    """vLLM's `LLM` of a policy.

    Args:
        policy: the weights to load.
        dtype: name of a torch dtype.
        on_cpu: whether no GPU is used.
        batch_size: most completions at a time.
        options: further arguments of `LLM`; None leaves one out.
    """
    if policy.adapter is not None:
        rank = next((each for each in RANKS if each >= policy.rank), policy.rank)
        options |= {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}
    return vllm_module().LLM(
        model=policy.model,
        revision=policy.revision,
        dtype=dtype,
        seed=0,  # each completion has a seed of its own
        max_num_seqs=batch_size,
        enforce_eager=on_cpu,
        generation_config="vllm",  # not the sampling settings that come with the model
        **{name: value for name, value in options.items() if value is not None},
    )


def adapter_request(policy: Served) -> Any:
    """The `LoRARequest` of a policy with an adapter; None for one without."""
    if policy.adapter is None:
        return None
    return vllm_module("lora.request").LoRARequest(policy.adapter.name, 1, str(policy.adapter))


def collapse_runs(ids: Iterable[int], token_id: int) -> list[int]:
    """The ids with each run of `token_id` shortened to one.

    A processor writes the image token once for each part of an image; vLLM expects it once and expands it itself.
    """
    return [each for token, run in groupby(ids) for each in ([token] if token == token_id else run)]


def check_prompts(expected: Iterable[Sequence[int]], read: Iterable[Sequence[int] | None]) -> None:
    """Raise ValueError if vLLM has read a prompt as other tokens than expected."""
    for ours, theirs in zip(expected, read, strict=True):
        if list(theirs or []) != list(ours):
            raise ValueError(
                f"vLLM read a prompt of {len(theirs or [])} tokens where the processor writes {len(ours)}, or other "
                "tokens; expected the same: its image tokens for this model differ from the processor's; set "
                "kind: transformers (use_vllm=False)"
            )


def check_lengths(prompts: Iterable[Sequence[int]], max_completion_length: int, llm: Any) -> None:
    """Raise ValueError if vLLM would cut completions.

    It does so silently at its limit of prompt and completion.

    Args:
        prompts: ids of the prompts, image tokens included.
        max_completion_length: longest completion, tokens.
        llm: vLLM's `LLM`.
    """
    limit: int = llm.llm_engine.model_config.max_model_len
    longest = max((len(ids) for ids in prompts), default=0)
    if longest + max_completion_length > limit:
        raise ValueError(
            f"vLLM would cut completions: it takes {limit} tokens, and a prompt has {longest}, to which "
            f"max_completion_length adds {max_completion_length}; expected at most {limit} together. Raise "
            "engine.max_model_length (null takes the model's own limit), or lower max_completion_length"
        )


def own_limit(config: Any) -> int | None:
    """A model's own limit of prompt and completion together, tokens; None where it scales its positions.

    Args:
        config: its configuration by transformers.
    """
    text: dict[str, Any] = config.get_text_config().to_dict()
    is_scaled = "factor" in repr(text.get("rope_parameters"))
    return None if is_scaled else text.get("max_position_embeddings")


def video_problem(model_type: str) -> str | None:
    """Why vLLM cannot take clips of a model by its video input; None if it can."""
    if model_type in VIDEO_TYPES:
        return None
    return (
        f"vLLM takes clips by the video input of {', '.join(VIDEO_TYPES)} alone, and the model is {model_type}: others "
        "may count positions after a clip otherwise than transformers; show clips as frames, or set kind: transformers"
    )


def unknown_architectures(names: Iterable[str]) -> list[str]:
    """The architectures that vLLM does not implement; loads vLLM, which takes seconds."""
    known: set[str] = set(vllm_module().ModelRegistry.get_supported_archs())
    return [name for name in names if name not in known]
