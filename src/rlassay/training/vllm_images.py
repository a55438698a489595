"""Two fixes for prompts with images that TRL sends to a colocated vLLM."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

_NEVER = -100.0
"""Logit bias of a token that must not be sampled; the lowest that vLLM takes."""


def patch_vllm_images(generation: Any, image_token_id: int) -> None:
    """Make vLLM see the images of a prompt as the trained policy does.

    - TRL sends prompts in which the processor has already expanded each image into its image tokens. vLLM takes the
      first of them for the whole image and expands it again. Here each run of image tokens is sent as the one token
      that vLLM expects, and the prompt that vLLM read is compared with TRL's.
    - vLLM caches the vision tower's output per image; here the cache is emptied whenever new weights arrive.
    - Image tokens are never sampled, since no image would belong to them. Without vLLM TRL already suppresses them.

    Args:
        generation: TRL's `VLLMGeneration` in `colocate` mode.
        image_token_id: the token that each part of an image has in a prompt.

    Errors: ValueError, from `generation.generate`, if vLLM read another prompt than the trainer's.

    Source: https://github.com/huggingface/trl/issues/6294 and https://github.com/huggingface/trl/issues/7198
    """
    generate, sync_weights = generation.generate, generation.sync_weights
    generation.generation_kwargs = {"logit_bias": {image_token_id: _NEVER}, **generation.generation_kwargs}

    def generate_as_trained(prompts: list[list[int]], **others: Any) -> tuple[Any, ...]:
        results = generate(prompts=[collapse_runs(ids, image_token_id) for ids in prompts], **others)
        for trained, read in zip(prompts, results[0], strict=True):
            if list(read) != list(trained):
                raise ValueError(
                    f"vLLM read a prompt of {len(read)} tokens where the trainer has {len(trained)}, or other tokens; "
                    "expected the same: its image tokens for this model differ from the processor's; set use_vllm=False"
                )
        return results

    def sync_and_empty_image_cache() -> None:
        sync_weights()
        generation.llm.llm_engine.reset_encoder_cache()

    generation.generate, generation.sync_weights = generate_as_trained, sync_and_empty_image_cache


def collapse_runs(ids: Iterable[int], token_id: int) -> list[int]:
    """The ids with each run of `token_id` shortened to one."""
    return [each for token, run in groupby(ids) for each in ([token] if token == token_id else run)]
