"""Every option of a study has a value in a committed file, or a reason why it has none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from rlassay.config import load_study
from rlassay.config.load import read_yaml
from rlassay.config.section import Section, alternatives, is_section, merge, to_json
from rlassay.config.study import ArmFile, StudyFile
from rlassay.config.training import Recipe
from rlassay.rewards import REWARDS

STUDIES = sorted([*Path("config/studies").glob("*.yaml"), *Path("examples").glob("*.yaml")])
DRAWS = "studies vary their own seeds; this one changes the draw that all runs share"
MACHINE = "follows from the user's machine: its GPUs, their memory and the libraries there"
USERS = "for the files of users"
INGREDIENTS = "an ingredient may be any part of a recipe; arms that are written out use the same part"
REASONS = {
    "Builtin.seed": DRAWS,
    "Columns.answer_is": USERS,
    "Columns.choices": USERS,
    "Columns.images": USERS,
    "Columns.meta": USERS,
    "Digits.seed": DRAWS,
    "Evaluation.seed": DRAWS,
    "Files.files": USERS,
    **{
        f"IngredientKeys.{part}": INGREDIENTS
        for part in ("credit_denominator", "entropy_penalty_coef", "model", "sft", "signals")
    },
    "HubModel.trust_remote_code": "off for safety",
    "Jsonl.kind": USERS,
    "JsonlPrompts.video_key": USERS,
    "MovingDigits.guess_share": "the built-in study takes the default",
    "MovingDigits.misread_share": "the built-in study takes the default",
    "MovingDigits.seed": DRAWS,
    "PromptLimit.trust_remote_code": "off for safety",
    **{f"Reference.{key}": USERS for key in ("compare", "dtype", "label", "path", "revision")},
    "SFTConfig.seed": DRAWS,
    "TransformersEngine.kind": "the default, for an arm or a command that takes another engine than the study",
    "VLLMSampler.importance_sampling_clip_min": "TRL's bound; the committed study takes its default",
    **{
        f"VLLMSampler.{key}": "needs several GPUs, or memory that a small model does not fill"
        for key in ("mode", "server_base_url", "sleep_level")
    },
    "VLLMEngine.tensor_parallel_size": "needs several GPUs",
    **{f"Optimisation.{key}": MACHINE for key in ("optim", "torch_compile", "use_liger_kernel")},
    "RLConfig.common_random_numbers": "made no interval narrower on the digits, see LOG.md; other runs may differ",
    "RLConfig.max_tokens_per_micro_batch": MACHINE,
    "SFTConfig.activation_offloading": MACHINE,
    "Table.preset": USERS,
    "TinyModel.seed": DRAWS,
    "DesignKeys.select_arms": "for a first look at a study of the user's own",
    "_IngredientHead.varies": INGREDIENTS,
}
"""Options that no committed file sets, and why a study may still need them."""


def name_of(section: type[Section], key: str) -> str:
    """The option by the class that declares it first, since a study may set it in any class below."""
    declaring = [each for each in section.__mro__ if key in getattr(each, "model_fields", {})]
    return f"{declaring[-1].__name__}.{key}"


def offered(section: type[Section], seen: set[type[Section]]) -> Iterator[str]:
    """The options of a section and of all sections below it. An arm repeats those of a recipe."""
    seen.add(section)
    for key, field in section.model_fields.items():
        if not (section is ArmFile and key in Recipe.model_fields):
            yield name_of(section, key)
            for below in sections_in(field.annotation):
                if below not in seen:
                    yield from offered(below, seen)


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    for option in alternatives(annotation):
        if is_section(option):
            yield option
        for inner in get_args(option):
            yield from sections_in(inner)


def set_in(value: Any) -> Iterator[str]:
    """The options to which a file gives a value."""
    if isinstance(value, Section):
        for key in value.model_fields_set:
            yield name_of(type(value), key)
            yield from set_in(getattr(value, key))
    elif isinstance(value, dict | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from set_in(inner)


def committed() -> Iterator[Any]:
    """Every study as written, as it is resolved, and at the committed scale."""
    for path in STUDIES:
        content = read_yaml(path)
        if "extends" in content:
            content = merge(read_yaml(path.with_name(f"{content['extends']}.yaml")), content)
        yield StudyFile.model_validate_json(to_json(content))
        yield load_study(path)
        yield load_study(path, "tiny")


def test_every_option_is_used_or_has_a_reason():
    used = {name for study in committed() for name in set_in(study)}
    unused = set(offered(StudyFile, set())) - used
    kinds = {name.removesuffix("kind") for name in unused if name.endswith(".kind")}
    missing = {name for name in unused if name.endswith(".kind") or not name.startswith(tuple(kinds))}
    assert missing == set(REASONS), "use the option in a committed study, remove it, or add a reason"


def test_every_built_in_reward_is_in_a_committed_study():
    used = {reward.kind or name for path in STUDIES for name, reward in load_study(path).rewards.items()}
    assert set(REWARDS) - used == set()
