"""What a row of a TRL batch says, in either of TRL's two formats."""

import hashlib
import json
from typing import Any


def prompt_key(row: dict[str, Any]) -> str:
    """`prompt_id` of a dataset row; rows of other people's datasets get the hex digest of the prompt's text."""
    if "prompt_id" in row:
        return row["prompt_id"]
    return hashlib.sha256(json.dumps(row["prompt"], default=lambda _: "image").encode()).hexdigest()[:16]


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """The sampled text of a plain or a conversational completion."""
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)


def images_of(prompt: str | list[dict[str, Any]]) -> list[Any]:
    """The images in the parts of a conversation, in their order; a plain prompt has none."""
    if isinstance(prompt, str):
        return []
    parts = [part for turn in prompt if not isinstance(turn["content"], str) for part in turn["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]
