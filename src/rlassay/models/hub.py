"""Load causal LMs, image-text-to-text models, encoder-decoders and classifiers, by hub name or from a folder."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from rlassay.models.seq2seq import DOCUMENT_TEMPLATE

if TYPE_CHECKING:
    from peft import PeftModel

Model = Union[PreTrainedModel, "PeftModel"]
Processor = ProcessorMixin | PreTrainedTokenizerBase
"""Prepares a model's inputs. It is a processor if the model reads images, a tokenizer if it reads text only."""
Kind = Literal["causal", "vision", "seq2seq"]
_AUTO_MODELS: dict[Kind, Any] = {
    "causal": AutoModelForCausalLM,
    "vision": AutoModelForImageTextToText,
    "seq2seq": AutoModelForSeq2SeqLM,
}


def load_pretrained(
    source: str,
    *,
    dtype: str,
    attn_implementation: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
) -> tuple[PreTrainedModel, Processor]:
    """The model at `source` and its processor.

    Args:
        source: hub name, or path of a folder written by `save_pretrained`.
        dtype: name of a torch dtype, such as `bfloat16`.
        attn_implementation: name of an attention kernel of transformers.
        revision: commit, tag or branch on the hub.
        trust_remote_code: whether to run code that ships with the model.
        load_in_4bit: whether linear layers are packed into four bits, as QLoRA does (arXiv 2305.14314: nf4, with the
            constants quantised too); needs bitsandbytes.

    Errors: ValueError if `source` is not found, unreadable, incomplete, or of an unsupported architecture.
    """
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    _check_folder(source)
    with _loading(f"the model {source!r}"):
        kind = _kind(source, origin)
        auto_model: Any = _AUTO_MODELS[kind]
        packed = {"quantization_config": _in_4bit(dtype)} if load_in_4bit else {}
        model, loading = auto_model.from_pretrained(
            source, dtype=dtype, attn_implementation=attn_implementation, output_loading_info=True, **packed, **origin
        )
        processor = _processor(source, origin, kind)
    _check_complete(loading, source)
    keep_names(model)
    return model, processor


def _in_4bit(dtype: str) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def load_classifier(
    source: str, *, dtype: str, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The sequence-classification model at `source` and its tokenizer; arguments and errors as in `load_pretrained`."""
    _check_folder(source)
    auto_model: Any = AutoModelForSequenceClassification
    with _loading(f"the model {source!r}"):
        model, loading = auto_model.from_pretrained(source, dtype=dtype, revision=revision, output_loading_info=True)
        tokenizer = cast(Any, AutoTokenizer).from_pretrained(source, revision=revision)
    _check_complete(loading, source)
    return model, tokenizer


def load_processor(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Processor:
    """The processor of the model at `source`, without the model; arguments and errors as in `load_pretrained`."""
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    _check_folder(source)
    with _loading(f"the processor of {source!r}"):
        return _processor(source, origin, _kind(source, origin))


def keep_names(model: PreTrainedModel) -> None:
    """Make `model.save_pretrained` write tensors under their names in memory.

    transformers saves some architectures (LLaVA, Qwen-VL, mixtures of experts) under the names of their first release.
    `from_pretrained` translates these names but `Trainer` does not: after a kill it would resume from the initial
    weights, with only a warning about missing keys.
    """
    save = cast(Any, model).save_pretrained
    model.save_pretrained = partial(save, save_original_format=False)


def _check_folder(source: str) -> None:
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_local and not Path(source).is_dir():
        raise ValueError(f"there is no model folder {source!r} (a hub name has the form <owner>/<model>)")


@contextmanager
def _loading(what: str) -> Generator[None, None, None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise ValueError(f"cannot load {what}: {_first_line(error)}") from error


def _check_complete(loading: dict[str, Any], source: str) -> None:
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ValueError(f"the weights of {source!r} lack {len(missing)} tensors, the first being {missing[0]}")


def _processor(source: str, origin: dict[str, Any], kind: Kind) -> Processor:
    auto: Any = AutoProcessor if kind == "vision" else AutoTokenizer
    processor = auto.from_pretrained(source, **origin)
    if kind == "seq2seq" and not processor.chat_template:
        processor.chat_template = DOCUMENT_TEMPLATE
    return processor


def _kind(source: str, origin: dict[str, Any]) -> Kind:
    config: PretrainedConfig = cast(Any, AutoConfig).from_pretrained(source, **origin)
    if config.is_encoder_decoder:
        if config.model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            raise ValueError(f"{source!r} is an encoder-decoder ({config.model_type}), but not one that reads text")
        return "seq2seq"
    return "vision" if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES else "causal"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def reward_device() -> tuple[str, str]:
    """Device and dtype of a reward's model.

    They are the job's GPU and the checkpoint's dtype, or the CPU and float32.
    """
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}", "auto"
    return "cpu", "float32"
