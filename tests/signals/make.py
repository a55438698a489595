"""Small models of every supported architecture, batches for them, and reference attention mass."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from rlassay.config.model import TinyVLM
from rlassay.models.tiny import build_tiny_vlm, train_tokenizer
from rlassay.signals import ModelInputs, model_inputs

TEXTS = ("Which digit is larger?\n(A)3 (B)7", "<think>7 3</think><answer>B</answer>", "Think first, then answer.")
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
    # Large weights, so that attention is far from even.
    "initializer_range": 0.4,
}


def llama(**changes: Any) -> LlamaForCausalLM:
    """Grouped queries: 4 heads share 2 pairs of keys and values."""
    return _built(LlamaForCausalLM, LlamaConfig(**{**SIZES, **changes}))


def gemma() -> Gemma2ForCausalLM:
    """A sliding window of 6 positions in every other layer, capped scores and capped logits."""
    config = Gemma2Config(
        **{**SIZES, "head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
    )
    return _built(Gemma2ForCausalLM, config)


def gpt_oss() -> GptOssForCausalLM:
    """Attention sinks, a sliding window and experts."""
    config = GptOssConfig(
        **{**SIZES, "head_dim": 8, "sliding_window": 6, "num_local_experts": 2, "num_experts_per_tok": 1}
    )
    return _built(GptOssForCausalLM, config)


def gpt2() -> GPT2LMHeadModel:
    """Learned positions, which padding must not shift."""
    return _built(GPT2LMHeadModel, GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=2, initializer_range=0.4))


def qwen_vl() -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL's vision tower with windows, its merger, and its text decoder with positions in three dimensions."""
    text = {
        **SIZES,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 14,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=50,
        video_token_id=51,
        vision_start_token_id=52,
        vision_end_token_id=53,
    )
    return _built(Qwen2_5_VLForConditionalGeneration, config)


def tiny_vlm() -> tuple[Any, Any]:
    """The built-in LLaVA-shaped model, with larger weights and 16 vision tokens per image."""
    config = TinyVLM(kind="tiny_vlm", layers=3, width=64, vision_layers=1, vision_width=16, vocab_size=300)
    return build_tiny_vlm(config, TEXTS)


def _built(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return kind(config).eval()


def text_batch(vocabulary: int = 61) -> tuple[dict[str, Tensor], int]:
    """Three prompts of 4 to 9 tokens padded on the left, completions of 3 to 5 padded on the right."""
    random = torch.Generator().manual_seed(2)
    lengths = ((4, 5), (9, 3), (7, 4))
    ids = torch.randint(2, vocabulary, (3, 14), generator=random)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in zip(mask, lengths, strict=True):
        row[9 - prompt : 9 + completion] = 1
    return {"input_ids": ids * mask, "attention_mask": mask}, 5


def qwen_batch() -> tuple[dict[str, Tensor], int]:
    """Two prompts: an image of 4 x 6 patches (2 x 3 tokens), and one of 2 x 4 (1 x 2 tokens); the second is shorter."""
    random = torch.Generator().manual_seed(4)
    rows = [[7, 52, *[50] * 6, 53, 9, 10, 11, 12, 13], [0] * 4 + [8, 52, *[50] * 2, 53, 14, 15, 16, 17, 0]]
    ids = torch.tensor(rows)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "mm_token_type_ids": (ids == 50).long(),
        "pixel_values": torch.randn(24 + 8, 3 * 2 * 14 * 14, generator=random),
        "image_grid_thw": torch.tensor([[1, 4, 6], [1, 2, 4]]),
    }, 4


def vlm_inputs(processor: Any, samples: tuple[int, ...] = (0, 1, 2, 3)) -> ModelInputs:
    """Four prompts: with image and system turn; with image; without either; the first again, completed otherwise."""
    images = [Image.new("RGB", (16, 16), color) for color in ("red", "white")]
    images[0].paste("blue", (0, 0, 7, 9))
    images_of = [[images[0]], [images[1]], None, [images[0]]]
    with_format_instruction = {"role": "system", "content": [{"type": "text", "text": "Think first, then answer."}]}
    questions = [("Which digit is larger?", True), ("larger?", True), ("(A)3 (B)7 digit is", False)]
    prompts = [_conversation(text, with_image) for text, with_image in questions]
    prompts = [[with_format_instruction, *prompts[0]], prompts[1], prompts[2], [with_format_instruction, *prompts[0]]]
    texts = ["<think>7 3</think><answer>B</answer><eos>", "<answer>A</answer><eos>", "3", "<think>3 7"]
    completions = [processor.tokenizer(text)["input_ids"] for text in texts]
    length = max(map(len, completions))
    ids = torch.tensor([each + [0] * (length - len(each)) for each in completions])
    mask = torch.tensor([[1] * len(each) + [0] * (length - len(each)) for each in completions])
    rows = list(samples)
    return model_inputs(
        processor, [prompts[row] for row in rows], [images_of[row] for row in rows], ids[rows], mask[rows]
    )


def _conversation(text: str, with_image: bool) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image"}] if with_image else []
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def text_processor() -> Any:
    """The tiny model's tokenizer, whose template takes plain text."""
    return train_tokenizer(TEXTS, vocab_size=300)


def eager_mass(model: Any, batch: dict[str, Tensor], segment_ids: Tensor, length: int) -> Tensor:
    """Mass from whole attention matrices, (layers, batch, time, segments)."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(**batch, output_attentions=True, use_cache=False).attentions
    size = segment_ids.shape[1]
    rows = torch.stack(attentions).float().mean(dim=2)[:, :, size - length - 1 : size - 1]
    indicator = torch.nn.functional.one_hot(segment_ids + 1)[..., 1:].float()
    mass = torch.einsum("lbtk,bks->lbts", rows, indicator)
    return mass * batch["attention_mask"][:, -length:, None]
