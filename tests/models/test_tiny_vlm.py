import pytest
import torch

from rlassay.config.model import TinyVLM
from rlassay.models.tiny_vlm import build_tiny_vlm
from tests.models.hubs import SMALLEST, TEXTS


def weights(config: TinyVLM) -> dict[str, torch.Tensor]:
    return build_tiny_vlm(config, TEXTS)[0].state_dict()


def test_the_seed_alone_decides_the_weights_whatever_the_global_rng_says():
    torch.manual_seed(1)
    first = weights(SMALLEST)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = weights(SMALLEST)

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


def test_another_seed_gives_other_weights():
    first, second = weights(SMALLEST), weights(SMALLEST.model_copy(update={"seed": 1}))

    assert not torch.equal(first["lm_head.weight"], second["lm_head.weight"])


def test_the_default_model_has_about_a_million_parameters():
    model, _ = build_tiny_vlm(TinyVLM(kind="tiny_vlm"), TEXTS)

    assert 0.8e6 < sum(weight.numel() for weight in model.parameters()) < 1.2e6


def test_an_image_must_divide_into_patches():
    with pytest.raises(ValueError, match=r"model.image_size: 16 is not a multiple of model.patch_size 5"):
        build_tiny_vlm(TinyVLM(kind="tiny_vlm", patch_size=5), TEXTS)


def test_an_image_of_any_size_becomes_as_many_tokens_as_the_model_has_patches():
    from PIL import Image

    _, processor = build_tiny_vlm(SMALLEST, TEXTS)
    inputs = processor(text="<image>Which?", images=[Image.new("L", (40, 10))], return_tensors="pt")

    assert inputs["pixel_values"].shape == (1, 3, 16, 16)
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 16  # (16 / 4) ** 2
