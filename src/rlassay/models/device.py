"""Where the models behind rewards run."""

import os

import torch


def reward_device() -> tuple[str, str]:
    """The job's own GPU with the checkpoint's type of numbers, or without a GPU the CPU with float32."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}", "auto"
    return "cpu", "float32"
