"""A text model small enough to train in a second, and a task for it."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig

WORDS = ["<pad>", "<eos>", "count", *"0123456789"]
NUM_PROMPTS = 12
OURS = (
    "advantage",
    "critic",
    "weight_phases",
    "kl",
    "groups",
    "signals",
    "entropy_penalty",
    "peft_config",
    "max_tokens_per_micro_batch",
    "common_random_numbers",
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of `WORDS`."""
    model = WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>")
    words = Tokenizer(model)
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def model() -> LlamaForCausalLM:
    """Two layers of width 32, the same weights at every call, whatever the global RNG says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
        return LlamaForCausalLM(config)


def dataset() -> Dataset:
    """Prompts such as `count 3`."""
    return Dataset.from_list(
        [{"prompt": f"count {index % 10}", "prompt_id": f"p{index}"} for index in range(NUM_PROMPTS)]
    )


def even_digits(completions: list[str], **columns: Any) -> list[float]:
    """Share of even digits in each completion, in TRL's signature."""
    return [sum(word in "02468" for word in text.split()) / max(1, len(text.split())) for text in completions]


def brevity(completions: list[str], **columns: Any) -> list[float]:
    """Minus the number of words, in TRL's signature."""
    return [-float(len(text.split())) for text in completions]


def grpo_config(folder: Path, **changes: Any) -> GRPOConfig:
    """Three steps of two groups of four completions of at most seven tokens, with `changes` laid over them."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 3,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 7,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 11,
    }
    return GRPOConfig(**settings | changes)


def save_as_start(policy: Any, folder: Path) -> None:
    """Save the policy where TRL will load the reference model from: the place that the policy says it came from."""
    policy.save_pretrained(folder / "start")
    policy.config._name_or_path = str(folder / "start")


def make_trainer(trainer_class: Any, folder: Path, credit: Any = None, **changes: Any) -> Any:
    """A trainer of three steps of two groups of four completions of at most seven tokens.

    Args:
        trainer_class: `trl.GRPOTrainer` or ours.
        folder: for its checkpoints.
        credit: for ours only.
        changes: differences in the arguments of `GRPOConfig`; `reward_funcs` replaces the rewards, and `peft_config`
            adds adapters; `advantage`, `critic`, `weight_phases`, `kl`, `groups`,
            `signals`, `entropy_penalty`, `max_tokens_per_micro_batch` and `common_random_numbers` are for ours only.
    """
    ours = {name: changes.pop(name) for name in OURS if name in changes}
    rewards = changes.pop("reward_funcs", [even_digits, brevity])
    policy = model()
    if changes.get("beta") or ours.get("kl"):
        save_as_start(policy, folder)
    trainer = trainer_class(
        model=policy,
        reward_funcs=rewards,
        args=grpo_config(folder, **changes),
        train_dataset=dataset(),
        processing_class=tokenizer(),
        **({} if credit is None else {"credit": credit}),
        **ours,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """A copy of the policy's parameters."""
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
