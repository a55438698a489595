"""The key of a prompt: a digest of what the model is shown."""

import hashlib
import json

from rlassay.records import PromptRow


def content_id(row: PromptRow) -> str:
    """16 hex digits over question, choices and images, whose paths are digests of their bytes.

    The gold answer is left out: the same prompt with another answer is a contradiction and not another prompt.
    """
    shown = [row.question, list(row.choices), [[item.kind, item.path] for item in row.media]]
    return hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode()).hexdigest()[:16]
