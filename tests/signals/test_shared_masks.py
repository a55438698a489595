"""One mask per prompt: the completions of a prompt see the same masked image, and its keys and values are shared."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from rlassay.signals import Masking, ModelInputs, ScoringConfig, generator, masked_images, masked_inputs, model_inputs
from rlassay.signals.formulas import perception
from rlassay.signals.measuring import RolloutBatch, SignalComputer, SignalPlan
from tests.signals import make

SEED, STEP = 7, 4
MASKING = Masking(block=4)


@pytest.fixture(scope="module")
def vlm() -> tuple[Any, Any]:
    return make.tiny_vlm()


def image(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rollout(processor: Any) -> RolloutBatch:
    """Three completions of prompt `a`, one of `b` without an image, two of `c`, whose prompt has the text of `a`'s."""
    texts = ["<think>7 3</think><answer>B</answer><eos>", "<answer>A</answer>", "3", "7", "<think>3", "larger?<eos>"]
    with_image = [make._conversation("Which digit is larger?", each) for each in (True, False)]
    return RolloutBatch(
        prompts=[with_image[index == 3] for index in range(6)],
        images=[[image(0)], [image(0)], [image(0)], [], [image(1)], [image(1)]],
        completion_ids=[processor.tokenizer(text)["input_ids"] for text in texts],
        prompt_ids=["a", "a", "a", "b", "c", "c"],
        samples=[0, 1, 2, 0, 0, 1],
        step=STEP,
    )


def measured(vlm: tuple[Any, Any], batch: RolloutBatch, mask_per: Literal["completion", "prompt"]) -> torch.Tensor:
    model, processor = vlm
    plan = SignalPlan(masking=MASKING, mask_per=mask_per)
    found = SignalComputer(processor, plan, frozenset({"perception"}), ScoringConfig(), SEED)(
        model, batch
    ).perception_BT
    assert found is not None
    return found


def by_hand(vlm: tuple[Any, Any], batch: RolloutBatch) -> torch.Tensor:
    """Perception from whole forward passes, one completion at a time, with the mask of each prompt's completion 0."""
    model, processor = vlm
    rows: list[torch.Tensor] = []
    for prompt, shown, ids, prompt_id in zip(
        batch.prompts, batch.images, batch.completion_ids, batch.prompt_ids, strict=True
    ):
        hidden = masked_images(shown, MASKING, generator(SEED, STEP, prompt_id, 0, "masked image"))
        tokens = torch.tensor([ids])
        logps: list[torch.Tensor] = []
        for seen in (shown, hidden):
            inputs = model_inputs(processor, [prompt], [seen], tokens, torch.ones_like(tokens))
            with torch.no_grad():
                logits = model(**inputs.batch([0], torch.device("cpu"))).logits[:, -len(ids) - 1 : -1]
            logps.append(logits.log_softmax(dim=2).gather(2, tokens[..., None])[..., 0])
        rows.append(perception(*logps)[0])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def test_perception_of_a_shared_mask_equals_whole_passes_by_hand(vlm: tuple[Any, Any]):
    batch = rollout(vlm[1])
    shared = measured(vlm, batch, "prompt")

    assert torch.allclose(shared, by_hand(vlm, batch), atol=1e-5)
    assert bool((shared[3] == 0).all())  # no image
    assert float(shared[[0, 1, 2, 4, 5]].max()) > 0.01


def test_the_first_completion_of_a_prompt_has_the_mask_that_it_has_alone(vlm: tuple[Any, Any]):
    batch = rollout(vlm[1])
    shared, own = measured(vlm, batch, "prompt"), measured(vlm, batch, "completion")

    first = [0, 3, 4]
    assert torch.allclose(shared[first], own[first], atol=1e-5)
    assert not torch.allclose(shared[[1, 2, 5]], own[[1, 2, 5]], atol=1e-3)


def test_a_shared_mask_depends_on_neither_the_batch_nor_the_process(vlm: tuple[Any, Any]):
    batch = rollout(vlm[1])
    rows = [5, 2, 1]
    some = replace(
        batch, **{name: [getattr(batch, name)[row] for row in rows] for name in vars(batch) if name in LISTS}
    )
    whole, part = measured(vlm, batch, "prompt"), measured(vlm, some, "prompt")

    assert torch.allclose(whole[rows][:, : part.shape[1]], part, atol=1e-5)


LISTS = ("prompts", "images", "completion_ids", "prompt_ids", "samples")


def test_samples_of_one_prompt_share_a_mask_and_are_one_prompt_to_the_model(vlm: tuple[Any, Any]):
    inputs = make.vlm_inputs(vlm[1])  # samples 0 and 3 have one prompt
    white = [Image.new("RGB", (16, 16), "white")]

    def masked(keys: list[str] | None) -> ModelInputs:
        generators = [generator(0, 1, "p", sample, "mask") for sample in range(4)]
        return masked_inputs(vlm[1], inputs, [white, white, None, white], generators, MASKING, keys)

    together, apart = masked(["p", "p", "q", "p"]), masked(None)

    # Of other tokens, sample 1 shares nothing in spite of its key.
    assert together.prompts == (0, 1, 2, 0)
    assert apart.prompts == (0, 1, 2, 3)
    pixels = [[each.get("pixel_values") for each in one.by_image] for one in (together, apart)]
    assert torch.equal(pixels[0][0], pixels[0][3])
    assert torch.equal(pixels[0][0], pixels[1][0])
    assert torch.equal(pixels[0][1], pixels[1][1])
    assert not torch.equal(pixels[1][0], pixels[1][3])
