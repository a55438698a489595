"""Refuse, before any job, a study whose engines this machine cannot run."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

from rlassay.config import Study, StudyError
from rlassay.config.engine import VLLMEngine
from rlassay.config.model import HubModel, ModelConfig
from rlassay.config.training import Recipe
from rlassay.files import read_json
from rlassay.models.vllm_engine import is_installed, set_environment, unknown_architectures, video_problem


def require_engines(study: Study) -> None:
    """Raise StudyError unless the engines of a study are installed and have its models.

    The error has all problems. The architecture of a model on the hub is read from its config file, which is downloaded
    if the machine lacks it; offline the model is first seen by a job.
    """
    if study.uses_vllm and (problems := list(_problems(study))):
        raise StudyError(problems)


def _problems(study: Study) -> Iterator[str]:
    if not is_installed():
        yield (
            f"engine: vllm, but vLLM is not installed in {sys.prefix}; run `make .venv-vllm` and give `make` the "
            "option ENGINE=vllm, or install `rlassay[vllm]`; or set kind: transformers"
        )
        return
    found = {name: arm for arm in _recipes(study) if (name := _architecture(arm)) is not None}
    if found:
        set_environment(on_cpu=study.gpus == 0)
        for name in unknown_architectures(found):
            model = found[name].model
            assert isinstance(model, HubModel)
            yield f"model.name: {model.name} is a {name}, which vLLM does not have; set kind: transformers for engine"
    yield from sorted({problem for arm in study.arms.values() for problem in _undivided(study, arm.recipe)})
    videos = {
        str(_config(arm.model)["model_type"]) for arm in _recipes(study) if _shows_video(arm) and _config(arm.model)
    }
    yield from (f"model.clips.show: video, but {why}" for each in sorted(videos) if (why := video_problem(each)))


def _recipes(study: Study) -> Iterator[Recipe]:
    """The recipes whose model vLLM loads."""
    everywhere = isinstance(study.evaluation.engine, VLLMEngine)
    yield from (arm.recipe for arm in study.arms.values() if everywhere or arm.recipe.rl.engine.kind == "vllm")


def _undivided(study: Study, recipe: Recipe) -> Iterator[str]:
    """That the processes which share a copy of the model cannot divide its attention heads."""
    heads = _heads(recipe.model)
    for key, engine in (("rl", recipe.rl.engine), ("evaluation", study.evaluation.engine)):
        size = engine.tensor_parallel_size if isinstance(engine, VLLMEngine) else 1
        if heads is not None and heads % size:
            yield (
                f"{key}.engine.tensor_parallel_size: {size} does not divide the {heads} attention heads of the model; "
                "expected a divisor"
            )


def _heads(model: ModelConfig) -> int | None:
    """Attention heads of a model; None where they are unknown."""
    if isinstance(model, HubModel):
        config = _config(model)
        return config.get("text_config", config).get("num_attention_heads")
    return model.num_heads


def _architecture(recipe: Recipe) -> str | None:
    """The architecture of a model; None where it is unknown, and for built-in ones."""
    names: list[str] = _config(recipe.model).get("architectures") or []
    return names[0] if names else None


def _config(model: ModelConfig) -> dict[str, Any]:
    """The configuration of a model; empty where it is unknown, and for built-in ones."""
    if not isinstance(model, HubModel):
        return {}
    if (folder := Path(model.name)).is_dir():
        return read_json(folder / "config.json") or {}
    return _on_hub(model.name, model.revision)


@cache
def _on_hub(name: str, revision: str | None) -> dict[str, Any]:
    """The configuration of a model on the hub; empty offline, unless it was downloaded before."""
    import huggingface_hub
    from httpx import HTTPError  # huggingface_hub passes the errors of its client on

    download: Any = cast(Any, huggingface_hub).hf_hub_download
    with suppress(OSError, ValueError, RuntimeError, HTTPError):  # being offline stops no study
        return read_json(Path(download(name, "config.json", revision=revision, etag_timeout=10))) or {}
    return {}


def _shows_video(recipe: Recipe) -> bool:
    return isinstance(recipe.model, HubModel) and recipe.model.clips.show == "video"
