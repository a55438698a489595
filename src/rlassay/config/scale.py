"""A scale: differences laid over a whole study and over each of its arms, so that the same question runs elsewhere."""

from typing import Any

from pydantic import Field

from rlassay.config.explain import nearest, one_of
from rlassay.config.section import Section
from rlassay.config.study import StudyFile
from rlassay.config.tree import locate
from rlassay.config.yaml_file import merge


class Overlay(Section):
    """Differences by section, in the shape of a study file."""

    model: dict[str, Any] = Field(default={})
    """Differences in the model section; another `kind` replaces it."""
    data: dict[str, Any] = Field(default={})
    """Differences in the data section; another `kind` replaces it, and its splits replace the study's."""
    sft: dict[str, Any] = Field(default={})
    """Differences in the warm start of those arms that have one."""
    rl: dict[str, Any] = Field(default={})
    """Differences in the RL section."""
    rewards: dict[str, Any] = Field(default={})
    """Differences in those rewards that an arm has, such as the length that a penalty begins at."""
    signals: dict[str, Any] = Field(default={})
    """Differences in how signals are measured."""
    evaluation: dict[str, Any] = Field(default={})
    """Differences in the evaluation."""
    primary: dict[str, Any] = Field(default={})
    """Differences in the primary number."""


class ScaleFile(Overlay):
    """`config/scales/<scale>.yaml`."""

    seeds: list[Any] | None = None
    """Replaces the study's seeds."""
    gpus: int | None = None
    """Replaces the study's number of GPUs."""
    adds_warm_start: bool = False
    """Give a study without any warm start `sft` as one: its model knows what to do, the scale's has to be shown."""
    by_source: dict[str, Overlay] = Field(default={})
    """By the `kind` of a study's data: laid over the rest of this file, whose `data` it replaces."""


def unknown_sources(scale: dict[str, Any]) -> list[str]:
    """One sentence for each source in `by_source` that no study can have."""
    known = locate(StudyFile, ("data",)).kinds
    return [
        f"by_source.{name}: unknown kind of data; expected {one_of(known)}{nearest(name, known)}"
        for name in scale.get("by_source", {})
        if name not in known
    ]


def fit_scale(content: dict[str, Any], scale: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The study with the warm start that the scale adds, if any, and the overlay for a study of its source.

    Args:
        content: a parsed study file that is sound as written.
        scale: a parsed scale file.
    """
    general = {key: over for key, over in scale.items() if key not in ("adds_warm_start", "by_source")}
    special = scale.get("by_source", {}).get(content["data"]["kind"], {})
    overlay = merge(general, special)
    if "data" in special:
        overlay["data"] = special["data"]
    is_warm = any(section.get("sft") for section in (content, *content["arms"].values()))
    if scale.get("adds_warm_start", False) and not is_warm:
        content = {**content, "sft": overlay["sft"]}
    return content, overlay


def lay_scale(sections: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """An overlay laid on sections; what they leave out (a warm start, a reward) stays out."""
    over = {key: section for key, section in overlay.items() if key != "sft" or sections.get("sft")}
    if "rewards" in over:
        over["rewards"] = {name: reward for name, reward in over["rewards"].items() if name in sections["rewards"]}
    laid = merge(sections, over)
    if "splits" in over.get("data", {}):
        laid["data"] = {**laid["data"], "splits": over["data"]["splits"]}
    return laid
