from pathlib import Path

import torch
from PIL import Image

from rlassay.evaluation.decode import Decoded, Decoding, _decoded, decode_batch
from rlassay.models import build_policy
from rlassay.models.chat import chat
from rlassay.models.hub import Model, Processor
from rlassay.models.tiny_vlm import build_tiny_vlm
from tests.models.hubs import SMALLEST, TEXTS, hub, row, text_model, vision_model

GREEDY = Decoding(sampled=False, temperature=1.0, top_p=1.0, max_completion_length=8, seed=0)
SAMPLED = Decoding(sampled=True, temperature=1.0, top_p=1.0, max_completion_length=8, seed=5)
IMAGES = [Image.linear_gradient("L").rotate(90 * turn).resize((16, 16)).convert("RGB") for turn in range(4)]


def texts(*lengths: int) -> list[list[dict[str, str]]]:
    """Conversations of different lengths."""
    return [[{"role": "user", "content": "Which digit is larger? " * length}] for length in lengths]


def talkative(folder: Path) -> tuple[Model, Processor]:
    """A vision model with a random head: an untrained one, whose head is its embedding, repeats the last token."""
    model, processor = build_policy(hub(vision_model(folder)), [])
    head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(head)
    return model, processor


def test_a_completion_ends_after_its_first_end_of_sequence_token():
    _, processor = build_tiny_vlm(SMALLEST, TEXTS)
    eos, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    a, b = processor.tokenizer.convert_tokens_to_ids(["A", "B"])
    ids = torch.tensor([[a, eos, b, eos], [a, b, a, b], [a, b, b, eos], [eos, pad, pad, pad]])

    assert _decoded(ids, processor, [eos]) == [
        Decoded(ids=[a, eos], text="A", finished=True),
        Decoded(ids=[a, b, a, b], text="ABAB", finished=False),
        Decoded(ids=[a, b, b, eos], text="ABB", finished=True),
        Decoded(ids=[eos], text="", finished=True),
    ]


def test_greedy_completions_do_not_depend_on_the_seed_or_the_repetition(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    prompts = texts(1, 2, 1, 2)
    first = decode_batch(model, processor, prompts, [[]] * 4, GREEDY)

    assert first[:2] == first[2:]
    assert decode_batch(model, processor, prompts, [[]] * 4, GREEDY) == first


def test_left_padding_changes_nothing(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    together = decode_batch(model, processor, texts(1, 4, 9), [[]] * 3, GREEDY)
    alone = [decode_batch(model, processor, [prompt], [[]], GREEDY)[0] for prompt in texts(1, 4, 9)]

    assert together == alone
    assert len({each.text for each in together}) > 1


def test_every_prompt_keeps_its_own_images(tmp_path):
    model, processor = talkative(tmp_path)
    prompts = [chat(row(image="x"), processor, told=False)] * 4
    together = decode_batch(model, processor, prompts, [[image] for image in IMAGES], GREEDY)
    alone = [decode_batch(model, processor, prompts[:1], [[image]], GREEDY)[0] for image in IMAGES]

    assert together == alone
    assert len({each.text for each in together}) > 1


def test_the_seed_decides_what_is_sampled(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    prompts = texts(1, 1, 1)
    first = decode_batch(model, processor, prompts, [[]] * 3, SAMPLED)
    torch.manual_seed(1)

    assert decode_batch(model, processor, prompts, [[]] * 3, SAMPLED) == first
    assert len({each.text for each in first}) == 3


def test_the_models_own_sampling_defaults_do_not_reach_the_evaluation(tmp_path):
    model, processor = build_policy(hub(text_model(tmp_path)), [])
    first = decode_batch(model, processor, texts(1, 1), [[]] * 2, SAMPLED)
    model.generation_config.update(top_k=1, temperature=0.1, repetition_penalty=9.0, top_p=0.1)

    assert decode_batch(model, processor, texts(1, 1), [[]] * 2, SAMPLED) == first


def test_an_image_token_is_never_sampled(tmp_path):
    model, processor = talkative(tmp_path)
    prompts = [chat(row(image="x"), processor, told=False)]
    loves_images = torch.zeros(model.config.text_config.vocab_size)
    loves_images[processor.image_token_id] = 1e4
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + loves_images)

    (completion,) = decode_batch(model, processor, prompts, [[IMAGES[0]]], GREEDY)

    assert len(completion.ids) > 0
    assert completion.text != ""
