"""Attention of an encoder-decoder to its document, against the weights that the model itself returns."""

import pytest
import torch

from rlassay.models.seq2seq import decoder_prefix
from rlassay.signals import attention_mass
from tests.training.tiny_seq2seq import SHAPES, model, own_attention

DOCUMENTS = ([3, 4], [3, 5, 6, 7, 8], [9, 10, 5])
COMPLETIONS = ([4, 1], [13, 12, 11, 5], [7, 7, 1])


def inputs(left: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Padded documents and completions, and segments: document tokens 0, 1 or 2, completions 3."""
    ids, mask, segments = [], [], []
    for document, completion in zip(DOCUMENTS, COMPLETIONS, strict=True):
        gap, end = 5 - len(document), 4 - len(completion)
        of_document = [token % 3 for token in document]
        before, after = (gap, 0) if left else (0, gap)
        ids.append([0] * before + document + [0] * after + completion + [0] * end)
        mask.append([0] * before + [1] * len(document) + [0] * after + [1] * len(completion) + [0] * end)
        segments.append([-1] * before + of_document + [-1] * after + [3] * len(completion) + [-1] * end)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}, torch.tensor(segments)


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_mass_is_that_of_the_models_own_cross_attention(shape: str, left: bool):
    policy = model(shape)
    batch, segments = inputs(left)
    mass = attention_mass(policy, batch, segments, 4)
    for row, (document, completion) in enumerate(zip(DOCUMENTS, COMPLETIONS, strict=True)):
        layers = own_attention(shape, document, [*decoder_prefix(policy), *completion[:-1]])
        for layer, weights in enumerate(layers):
            of_tokens = weights[0].mean(dim=0)[-len(completion) :]
            for segment in range(4):
                chosen = [index for index, token in enumerate(document) if token % 3 == segment]
                expected = of_tokens[:, chosen].sum(dim=1)
                torch.testing.assert_close(mass[layer, row, : len(completion), segment], expected, atol=2e-6, rtol=0)
        assert (mass[:, row, len(completion) :] == 0).all()
    assert len(mass) == len(policy.get_decoder().block if shape == "t5" else policy.get_decoder().layers)


def test_layers_are_chosen_by_index():
    policy = model("t5")
    batch, segments = inputs(left=False)
    every = attention_mass(policy, batch, segments, 4)
    assert torch.equal(attention_mass(policy, batch, segments, 4, [1]), every[1:])
    assert not torch.equal(every[0], every[1])
