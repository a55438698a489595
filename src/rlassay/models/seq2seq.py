# pyright: basic
# transformers' models, outputs and tokenizers are untyped.
"""Encoder-decoders: the decoder's prefix, teacher forcing, sampling, labels and their checks.

The encoder reads the prompt (the document); the decoder starts with a prefix that is never sampled, the start token and
the forced BOS token if the model has one, and writes the completion. Every stage takes these from here.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

DOCUMENT_TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}"
)
"""Chat template of an encoder-decoder that has none. The encoder reads the text of the turns and nothing else."""
_DROPOUT_RATES = ("dropout", "dropout_rate", "attention_dropout", "activation_dropout", "layerdrop")
"""Attributes in which modules of transformers keep rates as numbers."""
_MODEL_LIMIT = 10**6
"""A tokenizer without a limit of its own states a `model_max_length` of 10^30."""


def unwrapped(model: Any) -> Any:
    """The transformers model inside PEFT's wrapper, or the model itself."""
    return model if isinstance(model, PreTrainedModel) else model.get_base_model()


def is_encoder_decoder(model: Any) -> bool:
    """Whether a model, with or without adapters, has an encoder that reads the prompt."""
    return bool(model.config.is_encoder_decoder)


def reads_documents(processor: Any) -> bool:
    """Whether a processor renders prompts as plain documents, as that of an encoder-decoder does."""
    return processor.chat_template == DOCUMENT_TEMPLATE


def decoder_prefix(model: Any) -> list[int]:
    """Ids with which every decoder input begins: start token, then forced BOS if any.

    They are never sampled.

    Errors: ValueError for a model without `decoder_start_token_id`.
    """
    configs = (model.generation_config, model.config)

    def first(name: str) -> int | None:
        return next((value for config in configs if (value := getattr(config, name, None)) is not None), None)

    start, forced = first("decoder_start_token_id"), first("forced_bos_token_id")
    if start is None:
        raise ValueError(
            f"model: the config of {_name(model)} has no decoder_start_token_id, with which its decoder begins; set it "
            "(T5 and Pegasus begin with the padding token, BART with the end-of-sequence token)"
        )
    return [start] if forced is None else [start, forced]


def check_seq2seq(model: Any, tokenizer: Any, max_completion_length: int | None = None) -> None:
    """Raise ValueError unless a model and its tokenizer can train as an encoder-decoder.

    They must read documents and write completions of that length.
    """
    if not is_encoder_decoder(model):
        raise ValueError(
            f"model: got {_name(model)}, a causal model; expected an encoder-decoder (T5, BART, Pegasus, mBART). "
            "For a causal model use CreditGRPOTrainer"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise ValueError(
            f"processing_class: {type(tokenizer).__name__} has no padding token of its own, with which the encoder's "
            "batches are filled; set pad_token to the one that the model was trained with"
        )
    prefix = len(decoder_prefix(model))
    positions = decoder_positions(model)
    if max_completion_length is not None and positions is not None and prefix + max_completion_length > positions:
        raise ValueError(
            f"max_completion_length: got {max_completion_length}, but the decoder of {_name(model)} has {positions} "
            f"positions, {prefix} of which its prefix takes; expected at most {positions - prefix}"
        )


def decoder_positions(model: Any) -> int | None:
    """Positions of a model with absolute ones (BART, Pegasus, mBART); None for relative positions (T5)."""
    return getattr(model.config, "max_position_embeddings", None)


def document_ids(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of documents as the encoder reads them, special tokens included.

    A document longer than the model's positions, or than the tokenizer's `model_max_length`, loses its end.

    Errors: ValueError for an empty document.
    """
    limits = [limit for limit in (decoder_positions(model), tokenizer.model_max_length) if limit is not None]
    limit = min(limits, default=_MODEL_LIMIT)
    side, tokenizer.truncation_side = tokenizer.truncation_side, "right"
    options: dict[str, Any] = {"truncation": True, "max_length": limit} if limit < _MODEL_LIMIT else {}
    ids: list[list[int]] = tokenizer(list(texts), **options)["input_ids"]
    tokenizer.truncation_side = side
    for number, (text, each) in enumerate(zip(texts, ids, strict=True)):
        if not text.strip() or not each:
            raise ValueError(f"prompt {number} of the batch: got {text!r}, an empty document; expected text to encode")
    return ids


def label_ids(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids that a decoder learns: forced BOS if any, the text, the end token.

    A language code that the tokenizer writes after the end token (mBART) belongs to the decoder's prefix, not to the
    labels; so do tokens before the text if the model forces a BOS token.
    """
    forced = decoder_prefix(model)[1:]
    end = tokenizer.eos_token_id
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id, end}
    labels = []
    for ids in tokenizer(text_target=list(texts))["input_ids"]:
        last = next((place for place in reversed(range(len(ids))) if ids[place] not in special), -1)
        first = next((place for place in range(last + 1) if ids[place] not in special), 0) if forced else 0
        learned = [*forced, *ids[first : last + 1]]
        labels.append(learned if learned[-1:] == [end] else [*learned, end])
    return labels


class LabelShift:
    """Shifts labels to decoder inputs, in place of a model, for `DataCollatorForSeq2Seq(tokenizer, model=...)`.

    Models shift in ways of their own: mBART begins with the last label and ignores `decoder_start_token_id`.
    """

    def __init__(self, model: Any) -> None:
        self.start = decoder_prefix(model)[0]

    def prepare_decoder_input_ids_from_labels(self, labels: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
        """The start token, then all labels but the last."""
        starts = labels.new_full((len(labels), 1), self.start)
        # -100 comes after all labels of a row, so that any token may replace it.
        return torch.cat([starts, labels[:, :-1]], dim=1).clamp(min=0)


def pad_right(
    ids: Int[Tensor, "batch keys"], mask: Int[Tensor, "batch keys"]
) -> tuple[Int[Tensor, "batch keys"], Int[Tensor, "batch keys"]]:
    """Move all padding to the right, as absolute positions (BART, Pegasus, mBART) need it."""
    order = mask.argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def teacher_forcing(
    model: Any, input_ids: Int[Tensor, "batch keys"], attention_mask: Int[Tensor, "batch keys"], completion_length: int
) -> dict[str, Any]:
    r"""Arguments of `forward` that score a completion.

    The encoder reads the prompt, the decoder the completion before.

    Decoder inputs are $[p, y_1, \ldots, y_{C-1}]$ with the prefix $p$, so that the last C logits predict
    $y_1, \ldots, y_C$. The decoder needs no mask: it is causal, and completions are padded on the right.

    Args:
        model: an encoder-decoder.
        input_ids: (B, P+C), prompts padded on either side, then completions padded on the right.
        attention_mask: (B, P+C).
        completion_length: C.
    """
    ids, mask = pad_right(input_ids[:, :-completion_length], attention_mask[:, :-completion_length])
    prefix = torch.tensor(decoder_prefix(model), device=ids.device).expand(len(ids), -1)
    completion = input_ids[:, -completion_length:-1] if completion_length > 1 else input_ids[:, :0]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": torch.cat([prefix, completion], dim=1),
        "use_cache": False,
    }


class Seq2SeqPass:
    """A teacher-forced pass of an encoder-decoder, with the interface of `rlassay.signals.passes.ModelPass`.

    A document that several completions share, as those of a group do, is encoded once.
    """

    def __init__(
        self,
        model: Any,
        input_ids: Int[Tensor, "batch keys"],
        attention_mask: Int[Tensor, "batch keys"],
        completion_length: int,
    ) -> None:
        self.length = completion_length
        arguments = teacher_forcing(model, input_ids, attention_mask, completion_length)
        ids, mask = arguments.pop("input_ids"), arguments["attention_mask"]
        distinct, of_rows = torch.stack([ids, mask]).unique(dim=1, return_inverse=True)
        encoded = unwrapped(model).get_encoder()(input_ids=distinct[0], attention_mask=distinct[1], return_dict=True)
        shared = BaseModelOutput(last_hidden_state=encoded.last_hidden_state[of_rows])
        self._logits = model(encoder_outputs=shared, **arguments).logits[:, -completion_length:]
        self.batch_size, _, self.vocabulary = self._logits.shape

    def logits(self, tokens: slice) -> Float[Tensor, "batch some vocabulary"]:
        """Logits of the positions that predicted these completion tokens."""
        return self._logits[:, tokens]


def generate(
    model: Any,
    input_ids: Int[Tensor, "batch keys"],
    attention_mask: Int[Tensor, "batch keys"],
    config: GenerationConfig,
    *,
    own_defaults: bool = False,
) -> Int[Tensor, "completions time"]:
    """Completions of documents, without the decoder's prefix.

    Args:
        model: an encoder-decoder, with or without adapters.
        input_ids, attention_mask: (B, P), documents padded on either side. With `num_return_sequences` R above 1, each
            is in R rows in succession, as in a batch of groups, and is decoded once.
        config: how to decode.
        own_defaults: whether the model's generation config supplies other settings, such as `num_beams`.
    """
    inner = unwrapped(model)
    prefix = decoder_prefix(model)
    config = deepcopy(config)
    config.decoder_start_token_id = prefix[0]
    ids, mask = pad_right(input_ids, attention_mask)
    ids, mask = (rows[:: config.num_return_sequences or 1] for rows in (ids, mask))
    start = torch.tensor(prefix, device=ids.device).expand(len(ids), -1)
    own = inner.generation_config
    if not own_defaults:
        inner.generation_config = GenerationConfig()
    elif prefix[1:]:
        # As a plain call does it: a length penalty counts the forced token too.
        config.forced_bos_token_id = prefix[1]
        config.max_new_tokens += 1
        start = start[:, :1]
    try:
        # The method of the class, since `causal_generate` may have replaced that of the model.
        made = type(inner).generate(
            inner, input_ids=ids, attention_mask=mask, decoder_input_ids=start, generation_config=config
        )
    finally:
        inner.generation_config = own
    return made[:, len(prefix) :]


@contextmanager
def causal_generate(model: Any) -> Generator[None]:
    """In the body, `model.generate` returns prompts followed by completions, as causal models do.

    TRL cuts the prompts off these results. Outside of the body, `generate` is unchanged.
    """

    def generated(
        input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **unused: Any
    ) -> Tensor:
        completions = generate(model, input_ids, attention_mask, generation_config)
        return torch.cat([input_ids, completions], dim=1)

    model.generate = generated
    try:
        yield
    finally:
        del model.generate


def disable_dropout(model: Any) -> None:
    """Set every dropout rate of a model to 0, other than that of adapters.

    TRL samples and scores in training mode, where dropout would make log-probs noisy and ratios differ from 1.
    """
    for name, module in model.named_modules():
        if "lora_" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for rate in _DROPOUT_RATES:
            if isinstance(vars(module).get(rate), float):
                setattr(module, rate, 0.0)


def _name(model: Any) -> str:
    return type(unwrapped(model)).__name__
