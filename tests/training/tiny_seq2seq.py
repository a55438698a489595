"""Encoder-decoders of five shapes, small enough to train in a second, and a task for them."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedTokenizerFast,
    PrinterCallback,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.training.tiny_lm import brevity, even_digits, grpo_config, save_as_start

WORDS = ["<pad>", "<eos>", "<bos>", "count", *"0123456789"]
SHAPES = ("t5", "bart", "bart_forced", "pegasus", "mbart")
NUM_PROMPTS = 12


def tokenizer(digits: str = "0123456789") -> PreTrainedTokenizerFast:
    """One token per word of `WORDS`, with these digits."""
    known = [*WORDS[:4], *digits]
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(known)}, unk_token="<pad>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def model(shape: str = "t5") -> Any:
    """Weights far from 0, the same at every call, so that a wrong position or prefix changes logits visibly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        policy = _build(shape)
        for name, value in policy.named_parameters():
            if value.dim() == 2 and "relative" not in name:
                value.data.normal_(std=0.3)
    return policy.eval()


def own_attention(shape: str, document: list[int], decoder: list[int]) -> tuple[torch.Tensor, ...]:
    """The cross-attention (batch, heads, rows, keys) of each layer that the model itself returns."""
    policy = model(shape)
    for part in (policy, policy.get_encoder(), policy.get_decoder()):  # T5's stacks have configs of their own
        part.config._attn_implementation = "eager"
    arguments: dict[str, Any] = {"decoder_input_ids": torch.tensor([decoder]), "output_attentions": True}
    layers = policy(torch.tensor([document]), **arguments, use_cache=False).cross_attentions
    assert len(layers) == (2 if shape == "t5" else 1)
    return layers


def _build(shape: str) -> Any:
    ids: dict[str, Any] = {"vocab_size": len(WORDS), "pad_token_id": 0, "eos_token_id": 1}
    if shape == "t5":
        of_t5: dict[str, Any] = {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.1,
        }
        return T5ForConditionalGeneration(T5Config(**ids, **of_t5, decoder_start_token_id=0))
    sizes: dict[str, Any] = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 40,
        "max_position_embeddings": 24,
    }
    if shape == "pegasus":
        config = PegasusConfig(**ids, **sizes, decoder_start_token_id=0, forced_eos_token_id=None)
        return PegasusForConditionalGeneration(config)
    if shape == "mbart":
        # Its decoder starts with the code of a language, here the token 2.
        config = MBartConfig(**ids, **sizes, decoder_start_token_id=2, forced_eos_token_id=None)
        return MBartForConditionalGeneration(config)
    policy = BartForConditionalGeneration(BartConfig(**ids, **sizes, bos_token_id=2, decoder_start_token_id=1))
    policy.generation_config.forced_bos_token_id = 2 if shape == "bart_forced" else None
    policy.generation_config.forced_eos_token_id = None
    policy.final_logits_bias.normal_()  # part of the logits, which a shared head would leave out
    policy.final_logits_bias[0, 1] = 3.0  # so that some completions end early
    return policy


def dataset() -> Dataset:
    """Documents of different lengths, such as `count 3 3`."""
    texts = [" ".join(["count", *[str(index % 10)] * (1 + index % 4)]) for index in range(NUM_PROMPTS)]
    return Dataset.from_list([{"prompt": text, "prompt_id": f"p{index}"} for index, text in enumerate(texts)])


def make_trainer(trainer_class: Any, folder: Path, shape: str = "t5", **changes: Any) -> Any:
    """A trainer of three steps of two groups of four completions of at most seven tokens.

    Args:
        trainer_class: `Seq2SeqGRPOTrainer`, or one that refuses encoder-decoders.
        folder: for its checkpoints.
        shape: one of `SHAPES`.
        changes: differences in the arguments of `GRPOConfig`; those of the trainer itself replace its arguments.
    """
    own = (
        "model",
        "reward_funcs",
        "train_dataset",
        "processing_class",
        "credit",
        "signals",
        "peft_config",
        "advantage",
        "max_tokens_per_micro_batch",
    )
    ours = {name: changes.pop(name) for name in own if name in changes}
    policy = ours.pop("model", None) or model(shape)
    if changes.get("beta") and "peft_config" not in ours and not policy.config._name_or_path:
        save_as_start(policy, folder)
    arguments: dict[str, Any] = {
        "reward_funcs": [even_digits, brevity],
        "train_dataset": dataset(),
        "processing_class": tokenizer(),
    }
    trainer = trainer_class(model=policy, args=grpo_config(folder, **changes), **arguments | ours)
    trainer.remove_callback(PrinterCallback)
    return trainer
