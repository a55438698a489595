"""Build or load a policy with its processor and its adapters."""

from rlassay.models.policy import (
    build_policy,
    end_token_ids,
    load_policy,
    on_device,
    peft_config,
    tokenizer_of,
    training_rows,
)

__all__ = [
    "build_policy",
    "end_token_ids",
    "load_policy",
    "on_device",
    "peft_config",
    "tokenizer_of",
    "training_rows",
]
