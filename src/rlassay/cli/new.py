"""Write a study that extends another and states its differences only."""

import argparse
from typing import Any

import yaml

from rlassay.config import Study, StudyError
from rlassay.config.load import CONFIG, load_study, read_value, resolve_study
from rlassay.config.section import is_mapping

HEAD = "# yaml-language-server: $schema=../schema.json\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name, the study that it extends, and the differences."""
    parser.add_argument("name", help="name of the new study and of its file in config/studies/")
    parser.add_argument("--from", dest="parent", required=True, help="the study to extend, by name or path")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a difference, such as rl.max_steps=80 or seeds=[1,2]; null removes an arm or a reward; repeatable",
    )


def run(args: argparse.Namespace) -> int:
    """Check the new study, write its file, and print how to run it; 0."""
    path = CONFIG / "studies" / f"{args.name}.yaml"
    if path.exists():
        raise StudyError([f"{path}: exists already; choose another name, or edit the file"])
    content = with_settings({"name": args.name, "extends": args.parent}, args.settings)
    study, parent = resolve_study(content, source=str(path)), load_study(args.parent)
    with path.open("x", encoding="utf-8") as file:
        file.write(HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None))
    print(f"{path}: {_size(study)}; {parent.id} has {_size(parent)}")
    print(f"Run it: make ablation_report STUDY={args.name}")
    return 0


def with_settings(sections: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Sections with further keys, each from a text `key.path=value` whose value is YAML; StudyError for other texts."""
    sections = dict(sections)
    for text in settings:
        path, equals, value = text.partition("=")
        *above, key = path.split(".")
        section: Any = sections
        for part in above:
            section = section.setdefault(part, {}) if is_mapping(section) else None
        if not equals or not all([*above, key]) or not is_mapping(section) or key in section:
            raise StudyError([f"--set: got {text!r}, expected KEY=VALUE, such as rl.max_steps=80, each key once"])
        section[key] = read_value(value)
    return sections


def _size(study: Study) -> str:
    runs = len(study.arms) * len(study.seeds)
    return f"{len(study.arms)} arms x {len(study.seeds)} seeds = {runs} runs"
