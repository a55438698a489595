"""Causal LMs and image-text-to-text models by hub name or from a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

# MERGED FROM models.hub: Causal LMs and image-text-to-text models by hub name or from a folder.

if TYPE_CHECKING:
    from peft import PeftModel

Model = Union[PreTrainedModel, "PeftModel"]
Processor = ProcessorMixin | PreTrainedTokenizerBase


def load_pretrained(
    source: str, *, dtype: str, attn_implementation: str, revision: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, Processor]:
    """The model at `source` and what prepares its inputs: a processor if it sees images, a tokenizer if it does not.

    Args:
        source: hub name, or path of a folder written by `save_pretrained`.
        dtype: name of a torch type, such as `bfloat16`.
        attn_implementation: attention kernel, in transformers' words.
        revision: commit, tag or branch on the hub.
        trust_remote_code: whether code that ships with the model may run.

    Errors: ValueError saying what is wrong with `source`: not found, unreadable, incomplete, of a kind not supported.
    """
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    _check_folder(source)
    with _loading(f"the model {source!r}"):
        config = AutoConfig.from_pretrained(source, **origin)
        sees_images = _sees_images(config, source)
        auto_model: Any = AutoModelForImageTextToText if sees_images else AutoModelForCausalLM
        model, loading = auto_model.from_pretrained(
            source, dtype=dtype, attn_implementation=attn_implementation, output_loading_info=True, **origin
        )
        processor = (AutoProcessor if sees_images else AutoTokenizer).from_pretrained(source, **origin)
    _check_complete(loading, source)
    keep_names(model)
    return model, processor


def load_classifier(
    source: str, *, dtype: str, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The sequence-classification model at `source` and its tokenizer; arguments and errors as in `load_pretrained`."""
    _check_folder(source)
    auto_model: Any = AutoModelForSequenceClassification
    with _loading(f"the model {source!r}"):
        model, loading = auto_model.from_pretrained(source, dtype=dtype, revision=revision, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    _check_complete(loading, source)
    return model, tokenizer


def load_processor(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Processor:
    """What prepares the inputs of the model at `source`, without the model; arguments and errors as above."""
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    _check_folder(source)
    with _loading(f"the processor of {source!r}"):
        config = AutoConfig.from_pretrained(source, **origin)
        return (AutoProcessor if _sees_images(config, source) else AutoTokenizer).from_pretrained(source, **origin)


def keep_names(model: PreTrainedModel) -> None:
    """Let the model save its tensors under the names that they have in memory.

    transformers saves some architectures (LLaVA, Qwen-VL, mixtures of experts) under the names of their first release,
    which `from_pretrained` translates but `Trainer` does not: after a kill it would go on from the initial weights,
    with nothing but a warning about missing keys.
    """
    save: Any = model.save_pretrained
    model.save_pretrained = partial(save, save_original_format=False)


def _check_folder(source: str) -> None:
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_local and not Path(source).is_dir():
        raise ValueError(f"there is no model folder {source!r} (a hub name reads <owner>/<model>)")


@contextmanager
def _loading(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise ValueError(f"cannot load {what}: {_first_line(error)}") from error


def _check_complete(loading: dict[str, Any], source: str) -> None:
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ValueError(f"the weights of {source!r} lack {len(missing)} tensors, the first being {missing[0]}")


def _sees_images(config: PretrainedConfig, source: str) -> bool:
    if config.is_encoder_decoder:
        raise ValueError(
            f"{source!r} is an encoder-decoder ({config.model_type}); "
            "expected a causal LM or an image-text-to-text model"
        )
    return config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


# MERGED FROM models.device: Where the models behind rewards run.


def reward_device() -> tuple[str, str]:
    """The job's own GPU with the checkpoint's type of numbers, or without a GPU the CPU with float32."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}", "auto"
    return "cpu", "float32"
