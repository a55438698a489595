"""The settings in which a study's arms differ, and the confound check's result."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from rlassay.config.arms import covers, differences, undeclared
from rlassay.config.fingerprints import equal_arms
from rlassay.config.model import HubModel
from rlassay.config.section import is_mapping
from rlassay.config.study import Study
from rlassay.report.numbers import Design, DesignRow
from rlassay.report.typeset import listed, quoted

MACHINERY = ("optim", "use_liger_kernel", "torch_compile", "gradient_checkpointing", "activation_offloading")
"""Settings of a training section that change its speed or memory, but not its results."""


def build_design(study: Study) -> Design:
    """Every setting in which arms differ, and the result of the confound check."""
    found = differences(study)
    confounds = {name: undeclared(found[name], arm.varies) for name, arm in study.arms.items()}
    rows: list[DesignRow] = []
    for path in _settings(study, [one.path for arm in found.values() for one in arm]):
        values = _values(study, path)
        differing = [name for name in study.arms if values.get(name) != values.get(study.baseline)]
        confounded = [name for name in differing if any(covers(one.path, path) for one in confounds[name])]
        declared = [name for name in differing if name not in confounded]
        rows.append(DesignRow(key=path, values=values, declared_by=tuple(declared), confounds=tuple(confounded)))
    sentence = _design_sentence(study, tuple(rows)) + _levelled(study) + _machinery(study)
    return Design(sentence=sentence, rows=tuple(rows))


def _settings(study: Study, paths: Iterable[str]) -> Iterator[str]:
    """The paths, each once; a section that all arms have is replaced by the keys below it that differ."""
    recipes = [arm.recipe.model_dump(mode="json") for arm in study.arms.values()]
    spread = (key for path in paths for key in _keys(path, [list(_values_at(one, path.split("."))) for one in recipes]))
    return iter(dict.fromkeys(spread))


def _keys(path: str, found: list[list[Any]]) -> Iterator[str]:
    """The paths, this one or others below it, at which the arms' values differ.

    Paths below it are compared where all arms have a section there.
    """
    sections = [value for values in found for value in values if is_mapping(value)]
    if len(sections) < len(found):
        yield path
        return
    for key in dict.fromkeys(key for section in sections for key in section):
        values = [list(_values_at(section, [key])) for section in sections]
        if any(value != values[0] for value in values):
            yield from _keys(f"{path}.{key}", values)


def _machinery(study: Study) -> str:
    """A sentence on unusual strategy, precision, kernels or optimizer; empty if all are usual."""
    plain = {"sdpa", "adamw_torch_fused", "false", "null", "ddp"}
    precision = {None: None, True: "bfloat16", False: "float32"}[study.bf16]
    found: list[tuple[str, Any]] = [("strategy", study.strategy), ("cpu_offload", study.cpu_offload)]
    found.append(("precision", precision))
    for arm in study.arms.values():
        recipe = arm.recipe
        for name, section, keys in (
            ("model", recipe.model, ("attn_implementation",)),
            ("sft", recipe.sft, MACHINERY),
            ("rl", recipe.rl, (*MACHINERY, "max_tokens_per_micro_batch")),
        ):
            found += [(f"{name}.{key}", getattr(section, key, None)) for key in keys]
        found.append(("model.lora.load_in_4bit", isinstance(recipe.model, HubModel) and recipe.model.in_4bit))
    texts = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in found]
    used = dict.fromkeys(f"{key} {text}" for key, text in texts if text not in plain)
    return f" Jobs trained with {listed(list(used))}." if used else ""


def _levelled(study: Study) -> str:
    """A sentence on the arms that the study's scale makes equal; empty if it makes none."""
    pairs = [
        f"{quoted(study.arms[name].label)} trains as {quoted(study.arms[other].label)} does"
        for name, other in equal_arms(study).items()
    ]
    return f" At this scale {listed(pairs)}, which the study as written tells apart." if pairs else ""


def _design_sentence(study: Study, rows: tuple[DesignRow, ...]) -> str:
    if len(study.arms) == 1:
        return "The study has one arm, so nothing can be confounded."
    confounded = [f"{quoted(study.arms[name].label)} in {row.key}" for row in rows for name in row.confounds]
    if confounded:
        return f"Confounded, because arms differ from the baseline without declaring it: {'; '.join(confounded)}."
    return (
        "Confound check passed: every arm differs from the baseline only in settings that it declares as varied. "
        "Settings that are not in this table are the same in every arm."
    )


def _values(study: Study, path: str) -> dict[str, str]:
    """Arm -> value at the path as JSON text, for arms with this setting."""
    recipes = {name: arm.recipe.model_dump(mode="json") for name, arm in study.arms.items()}
    found = {name: list(_values_at(recipe, path.split("."))) for name, recipe in recipes.items()}
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False)
        for name, values in found.items()
        for value in values
    }


def _values_at(node: Any, keys: list[str]) -> Iterator[Any]:
    """The value below the keys, or nothing."""
    if not keys:
        yield node
    elif isinstance(node, Mapping) and keys[0] in node:
        yield from _values_at(cast("Mapping[str, Any]", node)[keys[0]], keys[1:])
