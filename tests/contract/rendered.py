"""Trainers of small models of several architectures, on conversations that can be rendered in several ways."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig

from rlassay.training import CreditGRPOTrainer
from tests.signals import make

WORDS = ["<pad>", "<eos>", "user", "assistant", "system", "tool", "silent", "None", *(f"w{n}" for n in range(53))]
TEMPLATE = (
    "{% if tools %}tool {{ tools[0]['function']['name'] }} {% endif %}"
    "{% for message in messages %}{{ message.role }} {{ message.content }} "
    "{% for call in message.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments }} {% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}assistant {% if enable_thinking is defined and not enable_thinking %}silent silent "
    "{% endif %}{% endif %}"
)
QUESTIONS = ("w1 w2 w3", "w4", "w5 w6", "w7 w8 w9 w10 w11")


def opt() -> OPTForCausalLM:
    """A model whose head calls the decoder directly, past its `base_model`."""
    config = OPTConfig(
        vocab_size=61,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        init_std=0.4,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return OPTForCausalLM(config).eval()


MODELS: dict[str, Any] = {
    "llama": make.llama,
    "gemma": make.gemma,
    "gpt_oss": make.gpt_oss,
    "gpt2": make.gpt2,
    "opt": opt,
}
"""Text models; `vlm` beside them is the built-in LLaVA-shaped one."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of `WORDS`."""
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="w0", padding_side="left"
    )
    made.chat_template = TEMPLATE
    return made


def length(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that varies: characters of a completion."""
    return [float(len(str(completion))) for completion in completions]


def trainer_of(kind: str, folder: Path, arguments: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A trainer of two groups of four, which measures entropy.

    Args:
        kind: a key of `MODELS`, or `vlm`.
        folder: for its checkpoints.
        arguments: of `GRPOConfig`.
        changes: other arguments of the trainer.
    """
    if kind == "vlm":
        model, processor = make.tiny_vlm()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            torch.nn.init.normal_(model.lm_head.weight, std=0.05)
        processor.chat_template = processor.chat_template.replace(
            "<|assistant|>", "<|assistant|>{% if enable_thinking is defined and not enable_thinking %}3 3{% endif %}"
        )
    else:
        model, processor = MODELS[kind](), tokenizer()
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    data = conversations(with_images=kind == "vlm")
    given: dict[str, Any] = {"model": model, "train_dataset": data, "credit": "entropy_filter"}
    given |= {"reward_funcs": length, "processing_class": processor}
    return CreditGRPOTrainer(args=GRPOConfig(**settings | (arguments or {})), **given | changes)


def conversations(*, with_images: bool = False) -> Any:
    """Prompts of different lengths."""
    rows = [{"prompt": [{"role": "user", "content": question}]} for question in QUESTIONS]
    if not with_images:
        return Dataset.from_list(rows)
    pictures = [Image.new("RGB", (16, 16), color) for color in ("red", "white", "blue", "black")]
    return Dataset.from_list([{**row, "image": picture} for row, picture in zip(rows, pictures, strict=True)])


def sampled(trainer: Any) -> dict[str, Any]:
    """One generation batch of the first two prompts."""
    trainer.model.train()
    return trainer._generate_and_score_completions([dict(trainer.train_dataset[index // 4]) for index in range(8)])


def entropy_of_trl(trainer: Any, output: dict[str, Any]) -> torch.Tensor:
    """Entropy of the completion tokens in the pass that TRL's loss makes, (batch, time)."""
    media = ("pixel_values", "image_grid_thw", "num_images", "token_type_ids", "mm_token_type_ids")
    trainer.model.eval()
    with torch.no_grad():
        _, entropy, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].shape[1],
            compute_entropy=True,
            **{name: output[name] for name in media if name in output},
        )
    return entropy
