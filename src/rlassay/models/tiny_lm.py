"""The built-in text model: a Llama of about 0.9M parameters at its defaults."""

from collections.abc import Iterable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlassay.config.model import TinyLM, TinyModel
from rlassay.models.tokenizer import train_tokenizer

_MAX_LENGTH = 2048
# Wider than transformers' 0.02, which suits widths above 1,000: it lets so narrow a model learn several times faster.
INITIAL_STD = 0.08


def build_tiny_lm(config: TinyLM, texts: Iterable[str]) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The untrained model and its tokenizer; they depend on the section and the texts alone, not on the global RNG.

    Args:
        config: sizes and the seed of the initial weights.
        texts: training text from which the tokenizer learns its vocabulary.
    """
    tokenizer = train_tokenizer(texts, config.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return LlamaForCausalLM(llama_config(config, tokenizer)), tokenizer


def llama_config(config: TinyModel, tokenizer: Any) -> LlamaConfig:
    """The language model of a built-in model; `tokenizer` is a `PreTrainedTokenizerFast`."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=3 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.width // 32,
        num_key_value_heads=config.width // 32,
        max_position_embeddings=_MAX_LENGTH,
        initializer_range=INITIAL_STD,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
