"""The three built-in models, small enough to train on a CPU, and their tokenizer.

- `build_tiny_lm`: a Llama of about 0.9M parameters at its defaults.
- `build_tiny_vlm`: the architecture of LLaVA (a CLIP vision tower, a projector, the same Llama), 1.0M parameters.
- `build_tiny_seq2seq`: a T5 of 0.8M parameters.

They learn a byte-pair vocabulary from the study's text with `train_tokenizer`.
"""

import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from rlassay.config.model import TinyLM, TinyModel, TinySeq2Seq, TinyVLM
from rlassay.models.hub import keep_names
from rlassay.models.seq2seq import DOCUMENT_TEMPLATE

MAX_LENGTH = 2048
"""Longest prompt and completion together, tokens."""
INITIAL_STD = 0.08
"""Standard deviation of the initial weights. transformers' 0.02 suits widths above 1,000; models as narrow as these
learn several times faster from a larger one."""

_NEIGHBOUR = 4.0
"""Attention logit of each token's neighbour in the built-in encoder-decoder. Others begin with 0."""

PAD, EOS, IMAGE = "<pad>", "<eos>", "<image>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# A standalone option letter, a digit and a punctuation mark never merge with their neighbours: `(A)3` is four tokens,
# so that the letter of an option in the prompt is the same token as the letter in the answer.
_PIECES = Regex(
    r"(?<!\p{L})[A-J](?!\p{L})"
    r"| ?(?![A-J](?!\p{L}))\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]"
    r"|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which each tag is one token; the same texts give the same tokenizer.

    Args:
        texts: texts to learn merges from; any other text can still be encoded, byte by byte if necessary.
        vocab_size: size of the vocabulary; it is smaller if the texts have no more pairs to merge.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, EOS, IMAGE, *ROLES]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_tags(texts), trainer)
    # Not special: decoding with skip_special_tokens must keep the tags, which rewards look for.
    cast(Any, tokenizer).add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[IMAGE, *ROLES],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


@contextmanager
def _seeded(seed: int) -> Generator[None, None, None]:
    """Seed the global RNG in the body, and restore its former state afterwards."""
    rng: Any = torch.random  # torch leaves types of these functions open
    with rng.fork_rng(devices=[]):
        rng.manual_seed(seed)
        yield


def _without_tags(texts: Iterable[str]) -> Iterable[str]:
    return (re.sub("|".join(TAGS), "\n", text) for text in texts)


def build_tiny_lm(config: TinyLM, texts: Iterable[str]) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The untrained text model and its tokenizer; they depend on the arguments alone, not on the global RNG.

    Args:
        config: sizes and the seed of the initial weights.
        texts: training texts, from which the tokenizer learns its vocabulary.
    """
    tokenizer = train_tokenizer(texts, config.vocab_size)
    with _seeded(config.seed):
        return LlamaForCausalLM(_llama_config(config, tokenizer)), tokenizer


def build_tiny_seq2seq(
    config: TinySeq2Seq, texts: Iterable[str]
) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """The untrained encoder-decoder and its tokenizer; they depend on the arguments alone, not on the global RNG.

    Heads begin by attending to neighbouring tokens: without that start a model of this size learns to copy ten times
    slower (held-out loss 3.03 instead of 1.10 after 300 steps of sentence compression).

    Args:
        config: sizes and the seed of the initial weights.
        texts: training texts, from which the tokenizer learns its vocabulary.
    """
    tokenizer: Any = train_tokenizer(texts, config.vocab_size)
    tokenizer.chat_template = DOCUMENT_TEMPLATE
    tokenizer.padding_side = "right"
    sizes = cast(Any, T5Config)(
        vocab_size=len(tokenizer),
        d_model=config.width,
        d_kv=32,
        d_ff=2 * config.width,
        num_layers=config.layers,
        num_heads=config.num_heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with _seeded(config.seed):
        model: Any = T5ForConditionalGeneration(sizes)
    # Buckets of relative positions: 1 is one token before; 2 is two before; 17, of the encoder alone, is one after.
    for stack, second in ((model.encoder, 17), (model.decoder, 2)):
        bias = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data
        bias.zero_()
        bias[1, 0] = _NEIGHBOUR
        if config.num_heads > 1:
            bias[second, 1] = _NEIGHBOUR
    return model, tokenizer


def _llama_config(config: TinyModel, tokenizer: Any) -> LlamaConfig:
    """The language model of both built-in models; `tokenizer` is a `PreTrainedTokenizerFast`."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=3 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=INITIAL_STD,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )


def build_tiny_vlm(config: TinyVLM, texts: Iterable[str]) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The untrained vision model and its processor; they depend on the arguments alone, not on the global RNG.

    Args:
        config: sizes and the seed of the initial weights.
        texts: training texts, from which the tokenizer learns its vocabulary.

    Errors: ValueError if `image_size` is not a multiple of `patch_size`.
    """
    if config.image_size % config.patch_size:
        raise ValueError(
            f"model.image_size: {config.image_size} is not a multiple of model.patch_size {config.patch_size}"
        )
    tokenizer = train_tokenizer(texts, config.vocab_size)
    processor = LlavaProcessor(
        image_processor=_image_processor(config.image_size),
        tokenizer=tokenizer,
        patch_size=config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the "default" strategy drops
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
    )
    with _seeded(config.seed):
        model = LlavaForConditionalGeneration(_llava_config(config, tokenizer))
    keep_names(model)
    configs: list[Any] = [model.config, model.generation_config]
    for config_of_model in configs:
        config_of_model.pad_token_id = tokenizer.pad_token_id
        config_of_model.eos_token_id = tokenizer.eos_token_id
    return model, processor


def _image_processor(image_size: int) -> CLIPImageProcessorPil:
    # The PIL-backed class, since the default one needs torchvision; it resizes to a square, which crops nothing.
    size = {"height": image_size, "width": image_size}
    mean_or_std = [0.5, 0.5, 0.5]
    return CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=mean_or_std, image_std=mean_or_std
    )


def _llava_config(config: TinyVLM, tokenizer: Any) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=config.vision_width,
        intermediate_size=2 * config.vision_width,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_width // 16,
        image_size=config.image_size,
        patch_size=config.patch_size,
        projection_dim=config.vision_width,
        initializer_range=INITIAL_STD,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=_llama_config(config, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        dtype="float32",
    )
