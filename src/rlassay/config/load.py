"""Load the YAML files of `config/`: a resolved `Study`, and the `Settings`."""

import json
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from rlassay.config.arms import expand_arms, fit_scale, lay_scale, unknown_sources
from rlassay.config.checks import check_design, check_study
from rlassay.config.checks.machine import missing_trackers
from rlassay.config.designs import design_arms, ingredient_labels, members
from rlassay.config.engine import EngineName
from rlassay.config.explain import StudyError, explain
from rlassay.config.section import Section, is_mapping, merge, to_json
from rlassay.config.settings import Settings
from rlassay.config.study import AlgorithmFile, Arm, DesignKeys, ScaleFile, SequentialSeeds, Study, StudyFile, StudyKeys
from rlassay.names import nearest, one_of

CONFIG = Path("config")
SectionT = TypeVar("SectionT", bound=Section)


def load_study(name_or_path: str | Path, scale: str | Path | None = None, engine: EngineName | None = None) -> Study:
    """Load, merge and check one study; every arm is validated before anything runs.

    Args:
        name_or_path: a file's name in `config/studies/` without `.yaml`, or a path.
        scale: a file's name in `config/scales/`, or a path, laid over the study; None runs it as written.
        engine: samples in RL and evaluation in place of the study's own engines; None keeps these.

    Raises:
        StudyError: lists every problem: key path, value found, values expected, the nearest valid name.
    """
    path = _find(name_or_path, "studies")
    content = _read(path)
    if path.parent == CONFIG / "studies" and content.get("name", path.stem) != path.stem:
        raise StudyError([f"name: got {content['name']!r}, expected {path.stem!r}, the name of its file"], str(path))
    study = resolve_study(content, source=str(path))
    if scale is None and engine is None:
        return study
    return scale_study(content, None if scale is None else _find(scale, "scales"), source=str(path), engine=engine)


def expand_design(study: Study | dict[str, Any]) -> dict[str, Arm]:
    """The arms of a study by name, complete and checked; those of its design are named after their ingredients.

    Args:
        study: the parsed content of a study file, or a resolved study, whose arms are expanded already.

    Raises:
        StudyError: as `load_study`; a problem of an ingredient names the ingredient.
    """
    return dict((study if isinstance(study, Study) else resolve_study(study)).arms)


def resolve_study(content: dict[str, Any], source: str = "study") -> Study:
    """The resolved study of a parsed study file; raises StudyError as `load_study` does."""
    study = _build(_written_out(content, source), {}, source)
    _raise_if_any(check_study(study) + check_design(study), source)
    return study


def scale_study(
    content: dict[str, Any],
    overlay_path: Path | None,
    source: str = "study",
    engine: EngineName | None = None,
) -> Study:
    """The resolved study with a scale and an engine laid over it.

    Its design was checked as written, since a scale may make arms equal (`equal_arms`).
    """
    content, overlay = _written_out(content, source), {}
    if overlay_path is not None:
        scale = _read(overlay_path)
        _validated(ScaleFile, scale, str(overlay_path))
        _raise_if_any(unknown_sources(scale), str(overlay_path))
        content, overlay = fit_scale(content | {"references": {}}, scale)
        source = f"{source} with {overlay_path} laid over it"
    if engine is not None:
        overlay = merge(overlay, {section: {"engine": {"kind": engine}} for section in ("rl", "evaluation")})
    name = None if overlay_path is None else overlay_path.stem
    study = _build(content, overlay, source).model_copy(update={"scale": name, "engine": engine})
    _raise_if_any(check_study(study), source)
    return study


def load_settings(path: Path | str = CONFIG / "config.yaml", **overrides: Any) -> Settings:
    """`config/config.yaml` with command-line overrides, of which None means not given.

    The text `null` or no text as `scale` or `engine` overrides the file's with none. The environment variable
    MLFLOW_TRACKING_URI overrides `tracking.uri`. Raises StudyError as `load_study` does.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    given |= {key: None for key in ("scale", "engine") if given.get(key) in ("", "null")}
    if not Path(path).is_file():
        raise StudyError([f"{path}: No such file or directory{_project_hint()}"])
    settings = _validated(Settings, _with_tracking_uri(merge(_read(Path(path)), given)), str(path))
    _raise_if_any(missing_trackers(settings), str(path))
    return settings


def settings_from_snakemake(config: dict[str, Any]) -> Settings:
    """The settings in Snakemake's `config`.

    Its `--config key=value` entries may be text where a number is meant.

    Raises StudyError, which for a key of the study says where to write it instead.
    """
    config = {**config, **{key: None for key in ("scale", "engine") if config.get(key) in ("", "null", "None")}}
    config = _with_tracking_uri(config)
    source = "config/config.yaml or --config"
    misplaced = [
        f"{key}: belongs to the study, since it decides its results; write it into config/studies/<study>.yaml"
        for key in config
        if key in StudyFile.model_fields and key not in Settings.model_fields
    ]
    misplaced += [
        f"{key}: got {str(config[key])!r}, but Snakemake takes braces for wildcards; rename it"
        for key in ("results", "scale")
        if set("{}") & set(str(config.get(key) or ""))
    ]
    _raise_if_any(misplaced, source)
    try:
        return Settings.model_validate_json(to_json(config), strict=False)
    except ValidationError as error:
        raise StudyError(explain(error, Settings, config), source) from None


def _with_tracking_uri(content: dict[str, Any]) -> dict[str, Any]:
    """The settings with MLflow's own variable in place of `tracking.uri`, as users of MLflow expect."""
    uri, tracking = os.environ.get("MLFLOW_TRACKING_URI"), content.get("tracking", {})
    return {**content, "tracking": {**tracking, "uri": uri}} if uri and is_mapping(tracking) else content


def _project_hint() -> str:
    """How to get from here to the project's folder; empty where `config/` is in the working directory."""
    if CONFIG.is_dir():
        return ""
    above = next((str(folder) for folder in Path.cwd().parents if (folder / CONFIG / "config.yaml").is_file()), None)
    where = "the one with the Snakefile and config/" if above is None else f"cd {shlex.quote(above)}"
    return f"; run the command in the project's folder ({where})"


def snakemake_config(settings: Settings, leave_out: Mapping[str, str] = {}) -> list[str]:
    """The settings that choose a study, as `key=value` arguments of `--config`, not yet quoted.

    Args:
        settings: which study, scale and results folder.
        leave_out: values that need no argument, since Snakemake takes them anyway.
    """
    chosen = {"study": settings.study, "scale": settings.scale or "null", "results": settings.results}
    chosen |= {"engine": settings.engine} if settings.engine else {}
    return [f"{key}={_yaml_text(value)}" for key, value in chosen.items() if leave_out.get(key) != value]


def _yaml_text(value: str) -> str:
    """Quote a text that YAML would read as a number, a mapping or a comment."""
    # Snakemake strips quotes at both ends, which the spaces protect, and tries numbers (`nan` is one) before YAML.
    return value if value == "null" or _is_plain(value) else f" {json.dumps(value, ensure_ascii=False)} "


def _is_plain(value: str) -> bool:
    with suppress(ValueError):
        float(value)
        return False
    try:
        return yaml.safe_load(value) == value and value.strip("'\"") == value
    except yaml.YAMLError:
        return False


def _written_out(content: dict[str, Any], source: str) -> dict[str, Any]:
    """Lay a study file over the study that it extends, and add its design's arms."""
    content = _extended(content, source)
    _validated(DesignKeys, {key: content[key] for key in DesignKeys.model_fields if key in content}, source)
    content, problems = design_arms(content)
    _raise_if_any(problems, source)
    return content


def _extended(content: dict[str, Any], source: str, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The content laid over the study that it extends, which may extend another; `chain`: those that led to it."""
    content = _with_presets(content, source)
    above = content.get("extends")
    if not isinstance(above, str):
        return content
    if "name" not in content:
        raise StudyError(["name: missing; expected a name of its own for a study that extends another"], source)
    path = _find(above, "studies")
    if path in chain:
        circle = [other.stem for other in (*chain[chain.index(path) :], path)]
        raise StudyError([f"extends: runs in a circle: {' extends '.join(circle)}"], source)
    parent = _extended(_read(path), str(path), (*chain, path))
    merged = merge({key: part for key, part in parent.items() if key != "extends"}, content)
    for key in ("arms", "rewards", "ingredients"):
        if is_mapping(merged.get(key)):
            merged[key] = {name: part for name, part in merged[key].items() if part is not None}
    return merged


def _with_presets(content: dict[str, Any], source: str) -> dict[str, Any]:
    """The content of one file with each `algorithm` replaced by its values.

    Keys that are written beside an `algorithm` override its values.
    """
    problems: list[str] = []
    filled = _on_preset(content, "", problems)
    for group in ("arms", "ingredients"):
        if is_mapping(filled.get(group)):
            places = {name: f"{group}.{name}." for name in filled[group]}
            filled[group] = {name: _on_preset(filled[group][name], place, problems) for name, place in places.items()}
    _raise_if_any(problems, source)
    return filled


def _on_preset(section: Any, place: str, problems: list[str]) -> Any:
    """A section laid over the preset that it names; an unknown name is added to the problems."""
    if not is_mapping(section) or not isinstance(section.get("algorithm"), str):
        return section
    written, name = dict(section), section["algorithm"]
    known = _names_in("algorithms")
    if name not in known:
        expected = f"expected {one_of(known)}" if known else f"but {CONFIG / 'algorithms'}/ is empty"
        problems.append(f"{place}algorithm: got the text {name!r}, {expected}{_project_hint()}{nearest(name, known)}")
        return section
    del written["algorithm"]
    path = _find(name, "algorithms")
    preset = _read(path)
    _validated(AlgorithmFile, preset, str(path))
    return merge(preset, written)


def _build(content: dict[str, Any], overlay: dict[str, Any], source: str) -> Study:
    """The study of a parsed file; StudyError holds the problems of its shared sections and of all its arms together.

    The overlay applies to the shared sections, and to each arm after the arm's own differences.
    """
    laid = lay_scale(content, overlay)
    try:
        written = StudyFile.model_validate_json(to_json(laid))
    except ValidationError as error:
        problems = explain(error, StudyFile, laid)
        if not any(problem.startswith("arms") for problem in problems):
            problems += expand_arms(content, overlay)[1]
        raise StudyError(problems, source) from None
    arms, problems = expand_arms(content, overlay)
    _raise_if_any(problems or _unselectable(arms, written), source)
    has, chosen = members(content), written.select_arms or tuple(arms)
    left_out = arms.keys() - set(chosen)
    arms = {name: arm.model_copy(update={"has": has.get(name, ())}) for name, arm in arms.items() if name in chosen}
    others = tuple(name for name in arms if name != written.baseline)
    family = others if written.family is None else tuple(name for name in written.family if name not in left_out)
    shared: dict[str, Any] = {key: getattr(written, key) for key in StudyKeys.model_fields}
    rounds = written.seeds if isinstance(written.seeds, SequentialSeeds) else None
    return Study(
        **shared,
        seeds=written.seeds if isinstance(written.seeds, tuple) else tuple(range(1, written.seeds.max + 1)),
        sequential=rounds,
        design=written.design,
        ingredients=ingredient_labels(content),
        family=family,
        arms=arms,
    )


def _unselectable(arms: dict[str, Arm], written: StudyFile) -> list[str]:
    """The problems of `select_arms`."""
    chosen = written.select_arms or tuple(arms)
    problems = [
        f"select_arms.{i}: got the text {name!r}, expected an arm: {one_of(arms)}{nearest(name, arms)}"
        for i, name in enumerate(chosen)
        if name not in arms
    ]
    if written.baseline in arms and written.baseline not in chosen:
        problems.append(
            f"select_arms: lacks the baseline {written.baseline!r}, with which the others are compared; add it, or "
            "declare one of these arms as the baseline"
        )
    return problems


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except ValueError as error:
        raise StudyError([str(error)]) from None


def _validated(kind: type[SectionT], content: dict[str, Any], source: str) -> SectionT:
    try:
        return kind.model_validate_json(to_json(content))
    except ValidationError as error:
        raise StudyError(explain(error, kind, content), source) from None


def _raise_if_any(problems: list[str], source: str) -> None:
    if problems:
        raise StudyError(problems, source)


def _find(name_or_path: str | Path, folder: str) -> Path:
    """The file of a study, a scale or a preset; StudyError lists the known names."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = CONFIG / folder / f"{name_or_path}.yaml"
    if path.is_file():
        return path
    known = _names_in(folder)
    expected = f"expected the path of a file, or {one_of(known)}" if known else f"and {CONFIG / folder}/ is empty"
    expected += _project_hint()
    raise StudyError([f"{path}: no such file; {expected}{nearest(str(name_or_path), known)}"])


def _names_in(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG / folder).glob("*.yaml"))


class _Loader(yaml.SafeLoader):
    """Reads YAML as people expect: `1e-4` is a number, a repeated key an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value]
        for (_, name), (key, _) in zip(keys, node.value, strict=True):
            if keys.count((key.tag, name)) > 1:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {name!r} appears twice in one section")
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-4 and 2.5e4 as text; YAML 1.2 and every user read numbers.
_Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] - PyYAML's stubs leave `tag` open
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, in JSON's types; ValueError names the file and the problem."""
    try:
        content = json.loads(to_json(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not is_mapping(content):
        raise ValueError(f"{path}: expected sections `key: value`, got {type(content).__name__}")
    return content


def read_value(text: str) -> Any:
    """A value written as in a study file: `80`, `1e-4`, `[1, 2]`, `null`; StudyError for text that is no YAML."""
    try:
        return json.loads(to_json(yaml.load(text, Loader=_Loader)))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise StudyError([f"got the value {text!r}: {error}"]) from None


class Commands:
    """Shell commands that make files of one study, at one scale, in one results folder."""

    def __init__(self, settings: Settings) -> None:
        usual = {"scale": "null", "results": "results"}
        self._config = shlex.join(snakemake_config(settings, leave_out=usual))

    def make(self, path: Path) -> str:
        """Make a missing file and every file that it needs."""
        return f"snakemake --cores all {shlex.quote(path.as_posix())} --config {self._config}"

    def remake(self, path: Path) -> str:
        """Make a file again (a training from step 0), and all that depends on it."""
        return f"snakemake --cores all -R {shlex.quote(path.as_posix())} --config {self._config}"

    def report(self) -> str:
        """Make the report and every file that it lacks."""
        return f"snakemake --cores all ablation_report --config {self._config}"
