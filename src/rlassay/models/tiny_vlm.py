"""The built-in vision-language model, LLaVA-shaped: a CLIP vision tower, a projector, a Llama; 1.0M parameters."""

from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from rlassay.config.model import TinyVLM
from rlassay.models.hub import keep_names
from rlassay.models.tiny_lm import INITIAL_STD, llama_config
from rlassay.models.tokenizer import CHAT_TEMPLATE, IMAGE, train_tokenizer


def build_tiny_vlm(config: TinyVLM, texts: Iterable[str]) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The untrained model and its processor; they depend on the section and the texts alone, not on the global RNG.

    Args:
        config: sizes and the seed of the initial weights.
        texts: training text from which the tokenizer learns its vocabulary.

    Errors: ValueError if an image does not divide into whole patches.
    """
    if config.image_size % config.patch_size:
        raise ValueError(
            f"model.image_size: {config.image_size} is not a multiple of model.patch_size {config.patch_size}"
        )
    tokenizer = train_tokenizer(texts, config.vocab_size)
    processor = LlavaProcessor(
        image_processor=_image_processor(config.image_size),
        tokenizer=tokenizer,
        patch_size=config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the "default" strategy drops again
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LlavaForConditionalGeneration(_llava_config(config, tokenizer))
    keep_names(model)
    for about in (model.config, model.generation_config):
        about.pad_token_id = tokenizer.pad_token_id
        about.eos_token_id = tokenizer.eos_token_id
    return model, processor


def _image_processor(image_size: int) -> CLIPImageProcessorPil:
    # PIL-backed: the default class needs torchvision. Images are squeezed to a square, so that nothing is cut off.
    size = {"height": image_size, "width": image_size}
    mean_or_std = [0.5, 0.5, 0.5]
    return CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=mean_or_std, image_std=mean_or_std
    )


def _llava_config(config: TinyVLM, tokenizer: Any) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=config.vision_width,
        intermediate_size=2 * config.vision_width,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_width // 16,
        image_size=config.image_size,
        patch_size=config.patch_size,
        projection_dim=config.vision_width,
        initializer_range=INITIAL_STD,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=llama_config(config, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        dtype="float32",
    )
