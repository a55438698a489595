"""Rewards that a user writes as functions in a file."""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from linecache import getline
from math import isfinite
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from rlassay.records import Completion
from rlassay.rewards.outcomes import InvalidOutputError, Scored, value_of

OVERALL = "overall"


def custom(
    completions: Sequence[Completion], *, path: str, batch: bool = False, options: dict[str, Any] | None = None
) -> list[float | None]:
    """The values that a function in a Python file returns: `path: rewards/mine.py:my_reward`.

    The function takes one completion as a dict and returns the reward, `(reward, metrics)`, or a dict with `overall`
    whose other entries are metrics. With `batch` it takes the group as a list of dicts and returns a list of such
    results. A reward is a number (of Python, NumPy or torch), or None if the function cannot score the completion. The
    dict holds `response` and `ground_truth` (texts), `response_length` (tokens), `finished`, `prompt` (the question),
    `choices` (list of texts), `images` (list of paths), `meta` and `signals`.

    The file may import files and packages beside it. The fingerprint of a result covers these, and files that `options`
    name. It does not cover files that the code opens by names of its own, modules imported under computed names, and
    installed packages.

    Args:
        completions: one prompt's group.
        path: the file, relative to the working directory of the program, a colon, and the function's name.
        batch: pass the whole group at once.
        options: keyword arguments of the function.

    Raises:
        ValueError: no such file or function, or options that the function does not take.
        InvalidOutputError: a result of another type, or a list of another length.

    Source: the two signatures of TSYJ-He/Visual-Reweighting, one from its manual and one from its code.
    """
    return [value_of(each) for each in custom_scored(completions, path=path, batch=batch, options=options)]


def custom_scored(
    completions: Sequence[Completion], *, path: str, batch: bool = False, options: dict[str, Any] | None = None
) -> list[float | Scored | None]:
    """As `custom`, with the metrics that the function returns beside a reward."""
    source, name = locate(path)
    arguments = options or {}
    with _importable(source.parent):
        function = _function(source, name)
        _check_arguments(function, arguments, f"{source.name}:{name}")
        if not completions:
            return []
        inputs = [_as_dict(completion) for completion in completions]
        try:
            results = function(inputs, **arguments) if batch else [function(each, **arguments) for each in inputs]
        except BaseException as error:
            error.add_note(_place(error, source.parent))
            raise
    listed = _listed(results, path)
    if len(listed) != len(inputs):
        raise InvalidOutputError(f"custom {path}: got {len(listed)} values for {len(inputs)} completions")
    return [_as_scored(result, path) for result in listed]


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


def _check_arguments(function: Callable[..., object], arguments: Mapping[str, object], where: str) -> None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # a callable without a readable signature
        return
    try:
        signature.bind([], **arguments)
    except TypeError as error:
        raise ValueError(
            f"options: {where}{signature} is called with a completion and these options: {error}"
        ) from None


# Results in any of the accepted forms.


def _listed(results: object, path: str) -> list[object]:
    """The results of a group as a list; an array counts as a list of numbers."""
    if not isinstance(results, list) and callable(getattr(results, "tolist", None)):
        results = cast(Any, results).tolist()
    if not isinstance(results, list):
        raise InvalidOutputError(f"custom {path}: got a {type(results).__name__} for a group; expected a list")
    return cast(list[object], results)


def _as_scored(result: object, path: str) -> float | Scored | None:
    """The reward, with its metrics if any; the caller, which knows the prompt, refuses NaN and infinity."""
    value, metrics = result, cast(object, {})
    if isinstance(result, tuple) and len(cast(tuple[object, ...], result)) == 2:
        value, metrics = cast(tuple[object, object], result)
    elif isinstance(result, Mapping) and OVERALL in result:
        value = cast(Mapping[str, object], result)[OVERALL]
        metrics = {key: each for key, each in cast(Mapping[str, object], result).items() if key != OVERALL}
    number = _number(value)
    if value is not None and number is None:
        raise InvalidOutputError(
            f"custom {path}: got {result!r}; expected a number, None, (reward, metrics) or a dict with {OVERALL!r}"
        )
    if metrics is not None and not isinstance(metrics, Mapping):
        raise InvalidOutputError(f"custom {path}: got the metrics {metrics!r}; expected a dict of numbers by name")
    numbers = _metrics(cast(Mapping[object, object], metrics or {}))
    return Scored(value=number, metrics=numbers) if numbers else number


def _metrics(metrics: Mapping[object, object]) -> dict[str, float]:
    """The metrics that are finite numbers; others cannot be averaged."""
    numbers = {str(name): _number(value) for name, value in metrics.items()}
    return {name: number for name, number in numbers.items() if number is not None and isfinite(number)}


def _number(value: object) -> float | None:
    """A number of Python, NumPy or torch as a float; None for anything else."""
    if not isinstance(value, Real | Decimal) and callable(getattr(value, "item", None)):
        try:
            value = cast(Any, value).item()  # an array or tensor with one element
        except (ValueError, RuntimeError, TypeError):
            return None
    if not isinstance(value, Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


# The file and its imports.


def locate(path: str) -> tuple[Path, str]:
    """File and function name in `file.py:function`; ValueError for another form or a missing file."""
    file, colon, name = path.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"path: got {path!r}; expected a Python file, a colon and a function, such as mine.py:reward")
    source = Path(file).absolute()
    if not source.is_file():
        raise ValueError(f"path: no file {source}")
    return source, name


def source_files(source: Path) -> dict[str, bytes]:
    """A file and all files beside it that it imports, directly or not.

    Returns path relative to its folder -> content.
    """
    folder = source.parent
    contents: dict[str, bytes] = {}
    waiting = [source]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(folder).as_posix()
        if name not in contents:
            contents[name] = file.read_bytes()
            waiting += _imported_files(contents[name], file.parent.relative_to(folder).parts, folder)
    return contents


def _imported_files(content: bytes, package: tuple[str, ...], folder: Path) -> Iterator[Path]:
    """The files below `folder` that the statements of a file import; `package` is the file's own package."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # running the file reports it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(tuple(alias.name.split(".")), folder)
        elif isinstance(node, ast.ImportFrom):
            outer = package[: len(package) - node.level + 1] if node.level else ()
            module = (*outer, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield from _files_of((*module, alias.name), folder)
        elif isinstance(node, ast.Call) and _imports_by_name(node.func) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                parts = tuple(name.value.split("."))
                yield from _files_of((*package, *parts[1:]) if not parts[0] else parts, folder)


def _imports_by_name(function: ast.expr) -> bool:
    """Whether a called expression is `importlib.import_module`, `import_module` or `__import__`."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return name in ("import_module", "__import__")


def _files_of(module: tuple[str, ...], folder: Path) -> Iterator[Path]:
    """The files that run when a module is imported.

    They are the `__init__.py` of each package, and the module's own file.
    """
    for depth in range(1, len(module) + 1):
        place = folder.joinpath(*module[:depth])
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                yield file
                break


def _function(source: Path, name: str) -> Callable[..., object]:
    members = vars(_module(source, tuple(source_files(source).items())))
    function = members.get(name)
    if not callable(function):
        public = ", ".join(key for key, value in members.items() if callable(value) and not key.startswith("_"))
        raise ValueError(f"path: no function {name!r} in {source}; it has {public or 'none'}")
    return function


_MODULES: dict[Path, dict[str, ModuleType]] = {}
"""Folder of a user's file -> its modules, by the name that imports them."""
_CONTENTS: dict[Path, bytes] = {}
"""File of a user -> its content when it was loaded."""


@contextmanager
def _importable(folder: Path) -> Generator[None, None, None]:
    """In the body, make the folder's modules importable and picklable; other code does not see them.

    Two folders may have modules of the same name, which must not be confused.
    """
    own = _MODULES.setdefault(folder, {})
    hidden = {name: sys.modules[name] for name in own if name in sys.modules}
    sys.modules.update(own)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # its cache misses quick edits
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_bytecode
        sys.path.remove(str(folder))
        own |= {name: sys.modules[name] for name in set(sys.modules) - before if _lies_in(sys.modules[name], folder)}
        for name in own:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether a module is a file of the folder, or part of a package there."""
    places = [str(place) for place in getattr(module, "__path__", [])] or [str(getattr(module, "__file__", None))]
    top = module.__name__.split(".")[0]
    return any(place in (str(folder / top), str(folder / f"{top}.py")) for place in places) or any(
        place.startswith(f"{folder / top}/") for place in places
    )


@lru_cache(maxsize=16)
def _module(source: Path, contents: tuple[tuple[str, bytes], ...]) -> ModuleType:
    """The user's file as a module; it runs once per content of the file and of those that it imports."""
    folder = source.parent
    files = {folder / name: content for name, content in contents}
    if any(_CONTENTS.get(file, content) != content for file, content in files.items()):
        for name in _MODULES[folder]:
            sys.modules.pop(name, None)
        _MODULES[folder].clear()
    _CONTENTS.update(files)
    importlib.invalidate_caches()  # a file that was written a moment ago is not in them
    name = _module_name(source)
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up there
    _MODULES[folder][name] = module
    try:
        exec(compile(files[source], str(source), "exec"), vars(module))
    except Exception as error:
        del sys.modules[name], _MODULES[folder][name]
        place = "" if isinstance(error, SyntaxError) else f" ({_place(error, folder)})"
        raise ValueError(f"path: {source} cannot be run: {type(error).__name__}: {error}{place}") from error
    return module


def _module_name(source: Path) -> str:
    """The module name of a file, with a digest if another module has it.

    Files beside it import it under the plain name.
    """
    name = source.stem
    try:
        known = sys.modules.get(name) or importlib.util.find_spec(name)
    except (ImportError, ValueError):
        known = None
    file = getattr(known, "origin", None) or getattr(known, "__file__", None)
    if known is None or file == str(source):
        return name
    return f"{name}_{sha256(str(source).encode()).hexdigest()[:8]}"


def _place(error: BaseException, folder: Path) -> str:
    """Origin of an exception in the user's files: file, line, function and statement."""
    place = "raised outside of the user's files"
    trace = error.__traceback__
    while trace is not None:
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        if Path(file).is_relative_to(folder) and "site-packages" not in file:
            statement = getline(file, line).strip()
            place = f'File "{file}", line {line}, in {trace.tb_frame.f_code.co_name}: {statement}'
        trace = trace.tb_next
    return place
