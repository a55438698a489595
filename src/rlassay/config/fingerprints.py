"""Fingerprints of results: short digests of the config sections and code that decide them.

Titles, labels, colours, questions, and the comparison family decide no result and enter no digest.
The number of processes decides the batches of training, and enters where it is above one.
"""

import ast
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import rlassay
from rlassay.config.data import PackageTexts
from rlassay.config.engine import PLACEMENT
from rlassay.config.inputs import data_inputs, model_inputs, reward_inputs
from rlassay.config.section import Section
from rlassay.config.study import Study
from rlassay.config.training import Recipe, RewardConfig
from rlassay.layout import Layout
from rlassay.rewards import READING_SIGNALS
from rlassay.rewards.custom import locate, source_files

DIGITS = 8
"""Hex digits of a fingerprint. Two of a study's few hundred are alike by chance once in 10^5 studies."""
PACKAGE = Path(rlassay.__file__).parent
"""Folder of the sources."""
_MODULE = re.compile(r"rlassay(\.[A-Za-z_]\w*)+")
PATIENCE = {"timeout", "max_failures"}
"""Keys of a reward that enter no fingerprint."""
DECIDES_NOTHING = ("rlassay.config.", "rlassay.tracking.", "rlassay.bar.", "rlassay.locks.")
"""Modules outside the digest of code. Fingerprints contain the config itself, and the others change no result."""


def data_id(study: Study) -> str:
    """Identifies the rows of all splits, by the section and the local inputs named.

    Rows that are made from installed packages follow the packages' versions.
    """
    packages = study.data.packages if isinstance(study.data, PackageTexts) else ()
    versions = {name: package_version(name) for name in packages}
    return _digest(study.data, versions, *_if_any(data_inputs(study.data)))


def _if_any(inputs: dict[str, str]) -> list[dict[str, str]]:
    """A part of fingerprints with local inputs only, so that others stay the same."""
    return [inputs] if inputs else []


def package_version(package: str) -> str | None:
    """The installed version of the distribution that a package belongs to; None if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:  # the distribution has another name, as scikit-learn has for sklearn
        names = packages_distributions().get(package, [])
        return version(names[0]) if names else None


def model_id(study: Study, recipe: Recipe) -> str:
    """Identifies the policy before any training; adapters start as the identity and do not count, 4-bit loading does.

    A built-in model learns its vocabulary from the study's prompts, so that its data belong to it.
    """
    model = recipe.model.model_dump(mode="json", exclude={"lora"})
    data = None if recipe.model.kind == "hub" else data_id(study)
    bits = {"load_in_4bit": "true"} if recipe.model.kind == "hub" and recipe.model.in_4bit else {}
    return _digest(model, data, *_if_any(model_inputs(recipe.model) | bits))


def sft_id(study: Study, recipe: Recipe) -> str:
    """Identifies the warm start, which arms with the same model and `sft` sections share; ValueError without one."""
    if recipe.sft is None:
        raise ValueError("this recipe has no sft section, so there is no warm start to identify")
    inputs = model_inputs(recipe.model) | _computed_by(study)
    return _digest(recipe.warm_start_model, recipe.sft, data_id(study), *_if_any(inputs))


def _computed_by(study: Study) -> dict[str, str]:
    """Settings that decide batches, draws and rounding; empty for one process of the usual precision."""
    chosen = {} if study.bf16 is None else {"bf16": str(study.bf16)}
    if study.num_processes > 1:
        chosen["processes"] = str(study.num_processes)
        chosen |= {} if study.strategy == "ddp" else {"strategy": study.strategy}
        chosen |= {"cpu_offload": "True"} if study.cpu_offload else {}
    return chosen


def sft_policy(study: Study, recipe: Recipe, seed: int) -> str | None:
    """The policy folder of a run's warm start: `sft/<id>`, or `sft/<id>/seed<k>` with `per_seed`; None without one."""
    if recipe.sft is None:
        return None
    return Layout.warm_start(sft_id(study, recipe), seed if recipe.sft.per_seed else None)


def rl_id(study: Study, arm_name: str, seed: int) -> str:
    """Identifies the weights of one arm and seed.

    How long a reward may take and how often it may fail decide whether the job stops; a run that stopped resumes when
    these are raised.
    """
    recipe = study.arms[arm_name].recipe
    trained = recipe.model_dump(
        mode="json", exclude={"sft": True, "rewards": {"__all__": PATIENCE}, "rl": {"engine": PLACEMENT}}
    )
    inputs = model_inputs(recipe.model) | reward_inputs(recipe.rewards) | _computed_by(study)
    start = sft_policy(study, recipe, seed)
    return _digest(trained, _own_rewards(recipe.rewards), start, data_id(study), seed, *_if_any(inputs))


def evaluation_id(study: Study, recipe: Recipe) -> str:
    """Identifies the sampling and the rows of an evaluation; without a warm start prompts state the format."""
    measured = recipe.signals.attention if reads_signals(study) else None
    of_curve = dict.fromkeys(("every", "curve_set", "while_training"), True)
    asked = study.evaluation.model_dump(mode="json", exclude={"engine": PLACEMENT, **of_curve})
    return _digest(asked, data_id(study), recipe.sft is None, measured)


def reads_signals(study: Study) -> bool:
    """Whether a reward of the study reads signals of completions."""
    return not READING_SIGNALS.isdisjoint(reward.kind or name for name, reward in study.rewards.items())


def score_id(study: Study) -> str:
    """Fingerprint of the scorers of completions, which the rewards' weights do not enter."""
    rewards = {name: reward.model_dump(mode="json", exclude={"weight"}) for name, reward in study.rewards.items()}
    return _digest(rewards, _own_rewards(study.rewards), *_if_any(reward_inputs(study.rewards)))


def decision_id(study: Study) -> str:
    """Identifies the settings that, besides the scores, decide a look at sequential seeds."""
    rounds = {} if study.sequential is None else study.sequential.model_dump(mode="json")
    return _digest(rounds, study.primary, study.baseline, study.family, sorted(study.arms))


def _own_rewards(rewards: Mapping[str, RewardConfig]) -> Any:
    """The statements of the user's own reward files, and of those that they import.

    Of the imported files only those beside a reward's file count. One reward named `custom` whose file imports no other
    is identified by the statements of that file alone.
    """
    own: dict[str, Any] = {}
    for name, reward in rewards.items():
        if (reward.kind or name) == "custom":
            contents = source_files(locate(reward.arguments["path"])[0])
            statements = {file: ast.dump(_parsed(content)) for file, content in contents.items()}
            own[name] = statements if len(statements) > 1 else next(iter(statements.values()))
    return own["custom"] if own.keys() == {"custom"} else own or None


def recipe_id(recipe: Recipe) -> str:
    """Identifies a recipe; two arms with the same one are the same arm."""
    return _digest(recipe)


def equal_arms(study: Study) -> dict[str, str]:
    """Arm -> the first arm with the same recipe, for arms that repeat one."""
    first: dict[str, str] = {}
    found = {name: first.setdefault(recipe_id(arm.recipe), name) for name, arm in study.arms.items()}
    return {name: other for name, other in found.items() if name != other}


def code_digest(*modules: str, package: Path = PACKAGE) -> str:
    """Digest of the code of `modules` and of all rlassay modules that they import.

    Modules that they import indirectly count too. Imports within functions count; comments and docstrings do not. A
    name that a package only passes on (`from rlassay.x import f`, where x/__init__.py imports f from x/y.py) leads to
    x/y.py alone. A text that is the dotted name of a module, as `python -m` takes it, counts as its import. Code listed
    in `DECIDES_NOTHING` is left out.

    Args:
        modules: dotted names, such as `rlassay.training.rl`.
        package: folder of the rlassay package.

    Raises:
        ValueError: a module does not exist.
    """
    statements: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in statements and not f"{module}.".startswith(DECIDES_NOTHING):
            source = _source(module, package)
            statements[module] = source.statements
            waiting += _imports(source, module, package)
    return _digest(statements)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A module's statements, and where it names other modules."""

    statements: str
    """Its statements without comments and docstrings, as text."""
    imported: tuple[str, ...]
    """Modules of `import ...`, anywhere in it."""
    from_imports: tuple[ast.ImportFrom, ...]
    """Each `from ... import ...`, anywhere in it."""
    passed_on: tuple[ast.ImportFrom, ...]
    """Each `from ... import ...` at module level, whose names other modules can import from it."""
    texts: tuple[str, ...]
    """Texts that read like a dotted name of a module."""


def _imports(source: _Source, module: str, package: Path) -> Iterator[str]:
    """The rlassay modules that define the names that `module` imports."""
    yield from (name for name in source.imported if f"{name}.".startswith("rlassay."))
    within = _parent(module, package)
    for node in source.from_imports:
        origin = _origin(node, within)
        if f"{origin}.".startswith("rlassay."):
            yield from (_defining(origin, alias.name, package) for alias in node.names)
    yield from (text for text in source.texts if _file(text, package))


def _defining(origin: str, name: str, package: Path) -> str:
    """The module behind `from <origin> import <name>`.

    It is a submodule, the one that `origin` has the name from, or `origin`.
    """
    if _file(f"{origin}.{name}", package) is not None:
        return f"{origin}.{name}"
    for node in _source(origin, package).passed_on:
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                source = _origin(node, _parent(origin, package))
                if f"{source}.".startswith("rlassay."):
                    return _defining(source, alias.name, package)
    return origin


def _parent(module: str, package: Path) -> str:
    """The package from which relative imports of a module start."""
    file = _file(module, package)
    return module if file is not None and file.name == "__init__.py" else module.rpartition(".")[0]


def _origin(node: ast.ImportFrom, within: str) -> str:
    """The absolute name of the module that a `from ... import` names, in a module of the package `within`."""
    return importlib.util.resolve_name("." * node.level + (node.module or ""), within)


def _file(module: str, package: Path) -> Path | None:
    path = package.joinpath(*module.split(".")[1:])
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _source(module: str, package: Path) -> _Source:
    file = _file(module, package)
    if file is None:
        raise ValueError(f"no module {module!r} in {package}")
    return _read(file.read_bytes())


@cache
def _read(content: bytes) -> _Source:
    """The source of a module; stages share most of their modules, so that each is read once."""
    tree = _parsed(content)
    nodes = list(ast.walk(tree))
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    return _Source(
        statements=ast.dump(tree),
        imported=tuple(alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names),
        from_imports=tuple(node for node in nodes if isinstance(node, ast.ImportFrom)),
        passed_on=tuple(node for node in tree.body if isinstance(node, ast.ImportFrom)),
        texts=tuple(value for value in constants if isinstance(value, str) and _MODULE.fullmatch(value)),
    )


def _parsed(source: bytes) -> ast.Module:
    """The statements of a module without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _plain(part: Any) -> Any:
    if isinstance(part, Section):
        return part.model_dump(mode="json")
    raise TypeError(f"a fingerprint is taken of sections and plain values, got {type(part).__name__}")
