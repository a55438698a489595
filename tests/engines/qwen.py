"""A Qwen2.5-VL of 0.9M parameters with random weights and its real processor, built without the hub."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{{ '<|vision_start|><|' + part['type'] + '_pad|><|vision_end|>' if part['type'] != 'text' else part['text'] }}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = ("user\nWhich digit is larger?\n(A)3 (B)7", "assistant\n<think>7 3</think><answer>B</answer>")
# One language-model token covers 28 x 28 pixels: a patch is 14 wide, and 2 x 2 patches are merged.
SMALLEST_IMAGE, LARGEST_IMAGE = 56 * 56, 112 * 112

# Heads are 32 wide, the least that vLLM's attention on CPUs takes.
TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
    "initializer_range": 0.1,
    "bos_token_id": None,
}
VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": 128,
    "window_size": 56,
    "fullatt_block_indexes": [1],
    "initializer_range": 0.1,
}


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL[3:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def qwen_processor() -> Any:
    """The processor of Qwen2.5-VL for small images; it needs torchvision."""
    from transformers import Qwen2_5_VLProcessor

    return _with_qwen2_inputs(Qwen2_5_VLProcessor)


def qwen2_processor() -> Any:
    """The processor of Qwen2-VL for small images; it needs torchvision."""
    from transformers import Qwen2VLProcessor

    return _with_qwen2_inputs(Qwen2VLProcessor)


def _with_qwen2_inputs(processor: Any) -> Any:
    """A processor of the given class, for small images and clips."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    limits = {"min_pixels": SMALLEST_IMAGE, "max_pixels": LARGEST_IMAGE}
    return processor(
        image_processor=Qwen2VLImageProcessor(**limits),
        tokenizer=qwen_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**limits),
        chat_template=CHAT_TEMPLATE,
    )


def qwen_model(tokenizer: PreTrainedTokenizerFast) -> Any:
    """Four layers of width 128 with grouped queries, the same weights at every call."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    about_text = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, **about_text, "vocab_size": len(tokenizer)},
        vision_config=VISION,
        **_tokens_of(tokenizer),
        tie_word_embeddings=True,
        dtype="float32",
    )
    return _from_seed(Qwen2_5_VLForConditionalGeneration, config, tokenizer)


def _tokens_of(tokenizer: Any) -> dict[str, int]:
    """The special tokens of vision, as both configs name them."""
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _from_seed(model_class: Any, config: Any, tokenizer: Any) -> Any:
    """A model with the same weights at every call, which ends and pads as its tokenizer does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    for about in (model.config, model.generation_config):
        about.pad_token_id, about.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    return model


def save_qwen(folder: Path) -> Path:
    """The model and its processor, saved like a model of the hub."""
    processor = qwen_processor()
    qwen_model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def qwen3_processor() -> Any:
    """The processor of Qwen3-VL for small clips, which writes the times of frames into prompts; needs torchvision."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    limits = {"patch_size": 16, "min_pixels": 32 * 32, "max_pixels": 64 * 64}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**limits),
        tokenizer=qwen_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(
            patch_size=16, size={"shortest_edge": 2 * 32 * 32, "longest_edge": 8 * 64 * 64}
        ),
        chat_template=CHAT_TEMPLATE,
    )


def qwen3_model(tokenizer: PreTrainedTokenizerFast) -> Any:
    """Two layers of width 128, the same weights at every call."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    about_text = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    rope = {**TEXT["rope_parameters"], "mrope_interleaved": True}
    text = {**TEXT, "num_hidden_layers": 2, "head_dim": 32, "rope_parameters": rope}
    vision = {name: VISION[name] for name in ("depth", "hidden_size", "intermediate_size", "num_heads")}
    config = Qwen3VLConfig(
        text_config={**text, **about_text, "vocab_size": len(tokenizer)},
        vision_config={
            **vision,
            **{"out_hidden_size": 128, "patch_size": 16, "initializer_range": 0.1},
            **{"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
        },
        **_tokens_of(tokenizer),
        tie_word_embeddings=True,
        dtype="float32",
    )
    return _from_seed(Qwen3VLForConditionalGeneration, config, tokenizer)


def qwen2_model(tokenizer: PreTrainedTokenizerFast) -> Any:
    """Four layers of width 128, the same weights at every call."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    about_text = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2VLConfig(
        text_config={**TEXT, **about_text, "vocab_size": len(tokenizer)},
        vision_config={"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2},
        **_tokens_of(tokenizer),
        tie_word_embeddings=True,
        dtype="float32",
    )
    return _from_seed(Qwen2VLForConditionalGeneration, config, tokenizer)


def onevision_processor() -> Any:
    """The processor of LLaVA-OneVision, which stacks clips, with Qwen's tokens; it needs torchvision."""
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(),
        tokenizer=qwen_tokenizer(),
        video_processor=LlavaOnevisionVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
    )
