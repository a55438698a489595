"""Attention of completions to the tokens of their documents, against the weights that the model itself returns."""

from dataclasses import replace

import pytest
import torch

from rlassay.models.seq2seq import decoder_prefix
from rlassay.signals.document import document_attention
from rlassay.signals.formulas import effective_number
from rlassay.signals.inputs import ModelInputs, SampledPrompts, sampled_inputs
from tests.training.tiny_seq2seq import SHAPES, model, own_attention, tokenizer

DOCUMENTS = ([3, 4, 1], [3, 5, 6, 7, 8, 1], [9, 10, 5, 1])
"""Each ends with the end token, as a T5 reads it."""
COMPLETIONS = ([4, 1], [13, 12, 11, 5], [7, 7, 1])


def inputs() -> ModelInputs:
    """The documents padded on the left, as TRL gives them."""
    rows = [torch.tensor(each) for each in COMPLETIONS]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    sampled = SampledPrompts(token_ids=DOCUMENTS, rendering=[{}] * 3)
    return sampled_inputs(tokenizer(), ["x"] * 3, None, ids, mask, sampled)


@pytest.mark.parametrize(
    ("mass", "number"),
    [
        ([0.0, 0.3, 0.0, 0.0], 1.0),
        ([0.1, 0.1, 0.1, 0.1], 4.0),
        # Shares 1/2, 1/4, 1/4: entropy 1.5 ln 2.
        ([0.2, 0.1, 0.0, 0.1], 2**1.5),
    ],
)
def test_the_effective_number_of_tokens_by_hand(mass: list[float], number: float):
    assert effective_number(torch.tensor([mass])).item() == pytest.approx(number)


def test_no_mass_has_no_effective_number():
    assert effective_number(torch.zeros(2, 3)).isnan().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mass_is_the_mean_over_tokens_of_the_models_own_cross_attention(shape: str):
    policy = model(shape)
    attention = document_attention(policy, inputs(), tokenizer())
    for row, (document, completion) in enumerate(zip(DOCUMENTS, COMPLETIONS, strict=True)):
        layers = own_attention(shape, document, [*decoder_prefix(policy), *completion[:-1]])
        # Heads and the completion's rows; two layers or one, so that the last third is all of them.
        by_layer = torch.stack([weights[0].mean(dim=0)[-len(completion) :].mean(dim=0) for weights in layers])
        expected = by_layer.mean(dim=0)[:-1]  # without the end token
        assert attention.token_ids[row] == document[:-1]
        torch.testing.assert_close(attention.mass_BK[row, : len(expected)], expected, atol=2e-6, rtol=0)
        assert (attention.mass_BK[row, len(expected) :] == 0).all()
        shares = expected / expected.sum()
        number = (-(shares * shares.log()).sum()).exp().item()
        assert attention.per_completion["attended_tokens/all"][row].item() == pytest.approx(number, rel=1e-4)
    assert attention.per_completion["text_tokens"].tolist() == [2, 5, 3]
    assert attention.mass_BK.sum(dim=1).max() < 0.999  # the end token has the rest


def test_batches_and_neighbours_change_nothing():
    policy, whole = model("bart"), inputs()
    together, alone = (document_attention(policy, whole, tokenizer(), batch_size=size) for size in (None, 1))
    torch.testing.assert_close(together.mass_BK, alone.mass_BK, atol=2e-6, rtol=0)
    copy = replace(whole, prompts=(0, 1, 2))
    assert torch.equal(document_attention(policy, copy, tokenizer()).mass_BK, together.mass_BK)
