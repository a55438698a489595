"""Write `config/schema.json`, from which editors complete and check study files: python -m rlassay.config.schema"""

import copy
import json
from typing import Any

from rlassay.config.load import CONFIG
from rlassay.config.section import alternatives, is_section
from rlassay.config.study import StudyFile
from rlassay.config.training import Recipe
from rlassay.rewards import REWARDS

SCHEMA = CONFIG / "schema.json"
CUSTOM = {"properties": {"kind": {"const": "custom"}}, "required": ["kind", "path"]}
"""Schema of a reward whose name is not a built-in one."""


def study_schema() -> str:
    """The JSON schema of a study file, as text; a section of an arm needs only the keys that the arm changes."""
    schema = StudyFile.model_json_schema()
    sections: dict[str, Any] = schema["$defs"]
    arm: dict[str, Any] = sections["ArmFile"]["properties"]
    for key, field in Recipe.model_fields.items():
        names = [option.__name__ for option in alternatives(field.annotation) if is_section(option)]
        if names:
            arm[key]["anyOf"] = [*(_partial(sections[name]) for name in names), {"type": "null"}]
    arm["rewards"]["anyOf"] = [
        _rewards({"anyOf": [_partial(sections["RewardConfig"]), {"type": "null"}]}, {"type": "object"})
    ]
    ingredient: dict[str, Any] = sections["IngredientFile"]["properties"]
    ingredient.update({key: part for key, part in arm.items() if key in Recipe.model_fields})
    schema["anyOf"] = [{"required": required} for required in _forms(schema.pop("required"))]
    schema["properties"]["rewards"].update(_rewards({"$ref": "#/$defs/RewardConfig"}, CUSTOM))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _forms(required: list[str]) -> list[list[str]]:
    """Keys that each form of a study needs: with arms, with a design, extending another."""
    designed = ["design" if key == "arms" else key for key in required]
    return [required, [*designed, "ingredients"], ["name", "extends"]]


def _partial(section: dict[str, Any]) -> dict[str, Any]:
    """A section whose keys may all be left out: an arm writes its differences only."""
    return {key: copy.deepcopy(part) for key, part in section.items() if key != "required"}


def _rewards(reward: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A mapping from the names of rewards; one of another name must also fit `other`."""
    names = dict.fromkeys(REWARDS, reward)
    return {"type": "object", "properties": names, "additionalProperties": {"allOf": [reward, other]}}


if __name__ == "__main__":
    SCHEMA.write_text(study_schema(), encoding="utf-8")
