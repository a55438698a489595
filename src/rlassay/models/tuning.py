"""Parts of a vision-language model that RL trains: language model, vision tower, connector.

The connector is between the other two.
"""

import re
from collections import Counter
from typing import Any

from rlassay.config.explain import StudyError
from rlassay.config.model import Tune
from rlassay.models.hub import Model

VISION = ("vision_tower", "visual", "vision_model", "vision_encoder", "image_tower")
"""Names of vision towers in transformers (`PreTrainedModel.get_encoder`)."""
CONNECTOR = (
    "merger",
    "deepstack_merger_list",
    "patch_merger",
    "multi_modal_projector",
    "multimodal_projector",
    "mm_projector",
    "connector",
    "aligner",
    "embed_vision",
)
"""Names of connectors in transformers; Qwen-VL's merger is inside its vision tower, but counts as a connector."""


def _within(names: tuple[str, ...]) -> str:
    return rf"(?:.*\.)?(?:{'|'.join(names)})(?:\..*)?"


PARTS = {
    "connector": _within(CONNECTOR),
    "vision": rf"(?!{_within(CONNECTOR)}$){_within(VISION)}",
    "language_model": rf"(?!{_within(CONNECTOR)}$)(?!{_within(VISION)}$).*",
}
"""Part of the model -> regular expression. The whole dotted name of its modules and parameters matches it."""


def part_of(name: str) -> str:
    """The part of the model that a module or parameter belongs to, by name."""
    return next(part for part, pattern in PARTS.items() if re.fullmatch(pattern, name))


def frozen_modules(tune: Tune | None) -> str | None:
    """Regular expression of the modules that adapters may not change; None if there are none."""
    frozen = [pattern for part, pattern in PARTS.items() if tune is not None and not getattr(tune, part)]
    return "|".join(f"(?:{pattern})" for pattern in frozen) or None


def freeze(model: Model, tune: Tune | None) -> None:
    """Freeze all parts but those that `tune` names; None changes nothing.

    Source: S3 (ChristianLin0420/Qwen2.5-VL-Video), `set_model`. Departure: there the head of the language model always
    trains, since the flags are set on its module and not on its weights.

    Errors: StudyError if the model lacks one of the parts.
    """
    if tune is None:
        return
    parameters = list(model.named_parameters())
    counts = Counter(part_of(name) for name, _ in parameters)
    missing = [part for part in PARTS if not counts[part]]
    if missing:
        children = sorted({".".join(name.split(".")[:2]) for name, _ in parameters})
        problem = f"rl.tune: {type(model).__name__} has no {' and no '.join(missing)}; its modules are"
        raise StudyError([f"{problem} {', '.join(children[:12])}; leave rl.tune out"])
    for name, parameter in parameters:
        chosen: Any = getattr(tune, part_of(name))
        parameter.requires_grad_(parameter.requires_grad and chosen)
