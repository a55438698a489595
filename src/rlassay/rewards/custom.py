"""The reward that a user writes as a function in a file."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from rlassay.records import Completion
from rlassay.rewards.outcomes import InvalidOutputError

OVERALL = "overall"


def custom(completions: Sequence[Completion], *, path: str, batch: bool = False) -> list[float | None]:
    """The values that a function in a Python file returns: `path: rewards/mine.py:my_reward`.

    The function takes one completion as a dict and returns the reward, `(reward, metrics)`, or a dict with `overall`.
    With `batch` it takes the group as a list of dicts and returns a list of such results. A reward is a number, or None
    if the function cannot score the completion; the metrics are not used. The dict holds `response` and `ground_truth`
    (texts), `response_length` (tokens), `finished`, `prompt` (the question), `choices` (list of texts), `images` (list
    of paths), `meta` and `signals`.

    Args:
        completions: one prompt's group.
        path: the file, relative to the working directory of the program, a colon, and the function's name.
        batch: pass the whole group at once.

    Raises:
        ValueError: no such file or function.
        InvalidOutputError: a result of another type, or a list of another length.

    Source: the two signatures of TSYJ-He/Visual-Reweighting, one from its manual and one from its code.
    """
    function = _load(path)
    if not completions:
        return []
    inputs = [_as_dict(completion) for completion in completions]
    results = function(inputs) if batch else [function(each) for each in inputs]
    if not isinstance(results, list):
        raise InvalidOutputError(f"custom {path}: got a {type(results).__name__} for a group; expected a list")
    listed = cast(list[object], results)
    if len(listed) != len(inputs):
        raise InvalidOutputError(f"custom {path}: got {len(listed)} values for {len(inputs)} completions")
    return [_as_value(result, path) for result in listed]


def _as_dict(completion: Completion) -> dict[str, Any]:
    row = completion.row
    return {
        "response": completion.text,
        "response_length": completion.token_count,
        "finished": completion.finished,
        "prompt": row.question,
        "ground_truth": row.answer.strip(),
        "choices": list(row.choices),
        "images": [item.path for item in row.media if item.kind == "image"],
        "meta": dict(row.meta),
        "signals": dict(completion.signals),
    }


def _as_value(result: object, path: str) -> float | None:
    """The reward in any of the accepted forms; the caller, which knows the prompt, refuses NaN and infinity."""
    value = result
    if isinstance(result, tuple) and len(cast(tuple[object, ...], result)) == 2:
        value = cast(tuple[object, object], result)[0]
    elif isinstance(result, Mapping) and OVERALL in result:
        value = cast(Mapping[str, object], result)[OVERALL]
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise InvalidOutputError(
            f"custom {path}: got {result!r}; expected a number, None, (reward, metrics) or a dict with {OVERALL!r}"
        )
    return float(value)


def locate(path: str) -> tuple[Path, str]:
    """File and function name in `file.py:function`; ValueError for another form or a missing file."""
    file, colon, name = path.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"path: got {path!r}; expected a Python file, a colon and a function, such as mine.py:reward")
    source = Path(file).absolute()
    if not source.is_file():
        raise ValueError(f"path: no file {source}")
    return source, name


def _load(path: str) -> Callable[[Any], object]:
    source, name = locate(path)
    members = _members(source, source.read_bytes())
    function = members.get(name)
    if not callable(function):
        public = ", ".join(key for key, value in members.items() if callable(value) and not key.startswith("_"))
        raise ValueError(f"path: no function {name!r} in {source}; it has {public or 'none'}")
    return cast(Callable[[Any], object], function)


@lru_cache(maxsize=16)
def _members(source: Path, content: bytes) -> dict[str, object]:
    """The names that a file defines; it runs once per content, without the bytecode cache, which misses quick edits."""
    module = ModuleType(source.stem)
    module.__file__ = str(source)
    try:
        exec(compile(content, str(source), "exec"), vars(module))
    except Exception as error:
        raise ValueError(f"path: {source} cannot be run: {type(error).__name__}: {error}") from error
    return vars(module)
