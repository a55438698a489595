"""Local model folders, in place of models of the hub."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from rlassay.config.model import HubModel, Lora, TinyVLM
from rlassay.models.tiny import build_tiny_vlm, train_tokenizer
from rlassay.records import Media, PromptRow

TEXTS = ("Which digit is larger?\n(A)3 (B)7", "<think>7 3</think><answer>B</answer>")
SMALLEST = TinyVLM(kind="tiny_vlm", layers=1, width=32, vision_layers=1, vision_width=16, vocab_size=300)


def text_model(folder: Path, *, tied: bool = False) -> Path:
    """A Llama of width 32 whose chat template takes plain text, saved like a model of the hub."""
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        LlamaForCausalLM(_llama(tokenizer, tie_word_embeddings=tied)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder: Path, labels: int, *, pad: bool = True, template: bool = True) -> Path:
    """The same Llama with a random head of so many labels; with `pad` its config names the padding token."""
    tokenizer = _tokenizer()
    if not template:
        tokenizer.chat_template = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = LlamaForSequenceClassification(_llama(tokenizer, num_labels=labels))
        model.score.weight.data.normal_()
    if not pad:
        model.config.pad_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _llama(tokenizer: PreTrainedTokenizerFast, **changes: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
        "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    return tokenizer


def vision_model(folder: Path) -> Path:
    """The smallest built-in model, saved like a model of the hub."""
    model, processor = build_tiny_vlm(SMALLEST, TEXTS)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def hub(name: Path | str, lora: Lora | None = None) -> HubModel:
    """A model section that names `name`, in float32."""
    return HubModel(kind="hub", name=str(name), dtype="float32", lora=lora)


def row(*, image: str | None = None, demonstration: str | None = None) -> PromptRow:
    """A prompt with four options and, if asked for, an image."""
    return PromptRow(
        prompt_id="p",
        question="Which digit is larger?",
        answer="B",
        choices=("3", "7", "1", "9"),
        media=() if image is None else (Media(path=image),),
        demonstration=demonstration,
    )
