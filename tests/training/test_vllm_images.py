from types import SimpleNamespace
from typing import Any

import pytest

from rlassay.training.vllm_images import collapse_runs, patch_vllm_images

IMAGE = 5


class Generation:
    """TRL's interface to vLLM: expands each image token to `size` tokens, and samples the token 8."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.generation_kwargs: dict[str, Any] = {"seed": 3}
        self.sent: list[list[int]] = []
        self.done: list[str] = []
        self.llm = SimpleNamespace(llm_engine=SimpleNamespace(reset_encoder_cache=lambda: self.done.append("emptied")))

    def sync_weights(self) -> None:
        self.done.append("synced")

    def generate(self, *, prompts: list[list[int]], images: Any, num_generations: int) -> tuple[Any, ...]:
        self.sent = prompts
        read = [[each for token in ids for each in [token] * (self.size if token == IMAGE else 1)] for ids in prompts]
        return read, [[8]] * len(prompts), None, None


def test_only_runs_of_the_token_are_shortened():
    assert collapse_runs([1, 5, 5, 5, 2, 2, 5, 1], IMAGE) == [1, 5, 2, 2, 5, 1]
    assert collapse_runs([], IMAGE) == []


def test_each_image_is_sent_as_one_token_and_never_sampled():
    generation = Generation(size=3)
    patch_vllm_images(generation, IMAGE)

    results = generation.generate(prompts=[[1, 5, 5, 5, 2], [1, 2]], images=[["image"], None], num_generations=2)

    assert generation.sent == [[1, 5, 2], [1, 2]]
    assert results == ([[1, 5, 5, 5, 2], [1, 2]], [[8], [8]], None, None)
    assert generation.generation_kwargs == {"logit_bias": {5: -100.0}, "seed": 3}


def test_a_prompt_that_vllm_reads_differently_is_an_error():
    generation = Generation(size=4)
    patch_vllm_images(generation, IMAGE)

    with pytest.raises(ValueError, match="read a prompt of 6 tokens where the trainer has 5"):
        generation.generate(prompts=[[1, 5, 5, 5, 2]], images=[["image"]], num_generations=1)


def test_the_image_cache_is_emptied_after_the_weights_change():
    generation = Generation(size=3)
    patch_vllm_images(generation, IMAGE)

    generation.sync_weights()

    assert generation.done == ["synced", "emptied"]
