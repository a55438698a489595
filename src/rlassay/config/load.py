"""From the files in `config/` to one resolved `Study`."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlassay.config.arms import expand_arms
from rlassay.config.checks import check_study
from rlassay.config.explain import StudyError, explain
from rlassay.config.settings import Settings
from rlassay.config.study import Study, StudyFile
from rlassay.config.yaml_file import merge, read_yaml

CONFIG = Path("config")


def load_study(name_or_path: str | Path, scale: str | None = None) -> Study:
    """Load, merge and check one study; every arm is validated before anything runs.

    Args:
        name_or_path: a file's name in `config/studies/` without `.yaml`, or a path.
        scale: a file's name in `config/scales/`, laid over the study; None runs it as written.

    Raises:
        StudyError: lists everything that is wrong: key path, what was got, what was expected, the nearest valid name.
    """
    path = _find(name_or_path, "studies")
    try:
        content = read_yaml(path)
        if scale is not None:
            content = merge(content, read_yaml(_find(scale, "scales")))
    except ValueError as error:
        raise StudyError([str(error)]) from None
    return resolve_study(content, scale=scale, source=str(path))


def resolve_study(content: dict[str, Any], scale: str | None = None, source: str = "study") -> Study:
    """The resolved study of a parsed study file; raises StudyError as `load_study` does."""
    try:
        written = StudyFile.model_validate_json(_json(content))
    except ValidationError as error:
        raise StudyError(explain(error, StudyFile), source) from None
    study = expand_arms(content, written, scale, source)
    check_study(study, source)
    return study


def load_settings(path: Path | str = CONFIG / "config.yaml", **overrides: Any) -> Settings:
    """`config/config.yaml` with command-line overrides; raises StudyError as `load_study` does."""
    try:
        content = merge(read_yaml(Path(path)), {key: value for key, value in overrides.items() if value is not None})
        return Settings.model_validate_json(_json(content))
    except ValidationError as error:
        raise StudyError(explain(error, Settings), str(path)) from None
    except ValueError as error:
        raise StudyError([str(error)]) from None
