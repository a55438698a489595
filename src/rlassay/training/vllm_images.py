"""Let vLLM, colocated by TRL, see prompts with images as the trainer does."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

_NEVER = -100.0
"""Logit bias of a token that must not be sampled; the least that vLLM takes."""


def patch_vllm_images(generation: Any, image_token_id: int) -> None:
    """Mend what TRL gets wrong where prompts show images, so that completions come from the policy being trained.

    - TRL hands over prompts in which the processor has already written one token per part of an image. vLLM takes the
      first of them for the whole image and writes all of them again. Here each run of image tokens is sent as the
      single token that vLLM expects, and what vLLM read is compared with what TRL meant.
    - vLLM keeps what its vision tower made of an image; here it forgets that when it gets new weights.
    - Image tokens are never sampled: they would stand for images that are not there. TRL sees to that elsewhere.

    Args:
        generation: TRL's `VLLMGeneration` in `colocate` mode.
        image_token_id: the token that stands for a part of an image.

    Errors: ValueError, from `generation.generate`, if vLLM read another prompt than the trainer's.

    Source: https://github.com/huggingface/trl/issues/6294 and https://github.com/huggingface/trl/issues/7198
    """
    generate, sync_weights = generation.generate, generation.sync_weights
    generation.generation_kwargs = {"logit_bias": {image_token_id: _NEVER}, **generation.generation_kwargs}

    def generate_as_trained(prompts: list[list[int]], **others: Any) -> tuple[Any, ...]:
        results = generate(prompts=[with_runs_as_one(ids, image_token_id) for ids in prompts], **others)
        for trained, read in zip(prompts, results[0], strict=True):
            if list(read) != list(trained):
                raise ValueError(
                    f"vLLM read a prompt of {len(read)} tokens where the trainer has {len(trained)}, or other ones; "
                    "expected the same: its image tokens for this model differ from the processor's; set use_vllm=False"
                )
        return results

    def sync_and_forget_images() -> None:
        sync_weights()
        generation.llm.llm_engine.reset_encoder_cache()

    generation.generate, generation.sync_weights = generate_as_trained, sync_and_forget_images


def with_runs_as_one(ids: Iterable[int], token_id: int) -> list[int]:
    """The ids with each run of `token_id` shortened to one."""
    return [each for token, run in groupby(ids) for each in ([token] if token == token_id else run)]
