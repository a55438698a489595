"""Per-token measurements of finished completions: attention mass, entropy, sensitivity to the image.

The re-exports are lazy: `import rlassay.signals`, and with it `rlassay.signals.formulas`, loads no transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlassay.signals.attention import attention_mass
    from rlassay.signals.inputs import ModelInputs, SampledPrompts, model_inputs, sampled_inputs, with_images
    from rlassay.signals.masking import Masking, masked_images, masked_inputs
    from rlassay.signals.measuring import SignalPlan, draws, generator
    from rlassay.signals.scoring import ScoringConfig, TokenScores, teacher_forced
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
    "SampledPrompts",
    "ScoringConfig",
    "SignalPlan",
    "TokenScores",
    "attention_mass",
    "draws",
    "generator",
    "layer_segments",
    "masked_images",
    "masked_inputs",
    "model_inputs",
    "sampled_inputs",
    "segment_ids",
    "teacher_forced",
    "vision_grid",
    "vision_token_ids",
    "with_images",
]

_MODULES = {
    "attention": ("attention_mass",),
    "inputs": ("ModelInputs", "SampledPrompts", "model_inputs", "sampled_inputs", "with_images"),
    "masking": ("Masking", "masked_images", "masked_inputs"),
    "measuring": ("SignalPlan", "draws", "generator"),
    "scoring": ("ScoringConfig", "TokenScores", "teacher_forced"),
    "segments": (
        "LAYER_SEGMENTS",
        "SEGMENTS",
        "layer_segments",
        "segment_ids",
        "vision_grid",
        "vision_token_ids",
    ),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
