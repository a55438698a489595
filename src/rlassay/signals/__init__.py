"""Per-token measurements that need the model: attention mass, entropy, and what the image matters."""

from rlassay.signals.attention import attention_mass
from rlassay.signals.inputs import ModelInputs, model_inputs, with_images
from rlassay.signals.masking import Masking, masked_images, masked_inputs
from rlassay.signals.measuring import draws, generator
from rlassay.signals.scoring import Scores, ScoringConfig, teacher_forced
from rlassay.signals.segments import (
    LAYER_SEGMENTS,
    SEGMENTS,
    layer_segments,
    segment_ids,
    vision_grid,
    vision_token_ids,
)

__all__ = [
    "LAYER_SEGMENTS",
    "SEGMENTS",
    "Masking",
    "ModelInputs",
    "Scores",
    "ScoringConfig",
    "attention_mass",
    "draws",
    "generator",
    "layer_segments",
    "masked_images",
    "masked_inputs",
    "model_inputs",
    "segment_ids",
    "teacher_forced",
    "vision_grid",
    "vision_token_ids",
    "with_images",
]
