"""Checks of the engines: refuse, before any job, studies that vLLM cannot sample."""

from collections.abc import Iterator

from rlassay.config.engine import VLLMEngine, VLLMSampler
from rlassay.config.model import HubModel, ModelConfig
from rlassay.config.study import Study
from rlassay.config.training import Recipe

SERVED = "set kind: transformers"


def evaluation_engine(study: Study) -> Iterator[str]:
    """With vLLM the evaluation has no beams, and the GPUs that share a model."""
    engine = study.evaluation.engine
    if not isinstance(engine, VLLMEngine):
        return
    if study.evaluation.beams is not None:
        yield f"evaluation.engine: vllm searches no beams, which evaluation.beams asks for; {SERVED}, or drop the beams"
    if engine.tensor_parallel_size > max(1, study.gpus):
        yield (
            f"evaluation.engine.tensor_parallel_size: {engine.tensor_parallel_size} GPUs share a model, but gpus is "
            f"{study.gpus}; expected at most {max(1, study.gpus)}"
        )


def arm_in_evaluation(study: Study, recipe: Recipe) -> Iterator[str]:
    """vLLM can answer with the arm's model."""
    if isinstance(study.evaluation.engine, VLLMEngine):
        for problem in _model(recipe):
            yield f"evaluation.engine: vllm, but {problem}; {SERVED}"


def rl_engine(study: Study, recipe: Recipe) -> Iterator[str]:
    """vLLM can sample for the arm's trainer."""
    engine = recipe.rl.engine
    if not isinstance(engine, VLLMSampler):
        return
    for problem in (*_model(recipe), *_algorithm(recipe, engine)):
        yield f"rl.engine: vllm, but {problem}; {SERVED}"
    yield from _bounds(engine)
    yield from _server(engine) if engine.mode == "server" else ()
    yield from _machine(study, engine)


def _model(recipe: Recipe) -> Iterator[str]:
    model: ModelConfig = recipe.model
    if recipe.is_seq2seq:
        yield "it has no encoder-decoders"
    if isinstance(model, HubModel) and model.in_4bit:
        yield "model.lora.load_in_4bit is not available with it"


def _algorithm(recipe: Recipe, engine: VLLMSampler) -> Iterator[str]:
    if recipe.rl.advantage.kind == "remax":
        yield "the greedy completions of rl.advantage remax are sampled by transformers alone"
    if engine.mode == "server" and isinstance(recipe.model, HubModel) and recipe.model.clips.show == "video":
        yield "TRL sends its server images alone, and model.clips.show is video"
    mode = engine.importance_sampling_mode
    if recipe.rl.loss_type == "vespo" and not mode.startswith("token_"):
        yield f"rl.loss_type vespo takes importance_sampling_mode token_truncate or token_mask, got {mode}"


def _bounds(engine: VLLMSampler) -> Iterator[str]:
    mode = engine.importance_sampling_mode
    low, high = engine.importance_sampling_clip_min, engine.importance_sampling_clip_max
    if low is not None and high is not None and low >= high:
        yield f"rl.engine.importance_sampling_clip_min: {low:g} is not below importance_sampling_clip_max {high:g}"
    if low is None and high is None and mode.endswith("_truncate"):
        yield f"rl.engine.importance_sampling_mode: {mode} needs a bound; set importance_sampling_clip_max"


def _server(engine: VLLMSampler) -> Iterator[str]:
    if not (engine.server_base_url or "").startswith(("http://", "https://")):
        yield (
            f"rl.engine.server_base_url: got {engine.server_base_url!r} with mode server; expected an address such as "
            "http://localhost:8000"
        )
    if engine.tensor_parallel_size > 1 or engine.sleep_level:
        yield "rl.engine: tensor_parallel_size and sleep_level belong to mode colocate; give them to `vllm serve`"


def _machine(study: Study, engine: VLLMSampler) -> Iterator[str]:
    """Settings that need GPUs have enough of them."""
    if study.num_processes % engine.tensor_parallel_size:
        yield (
            f"rl.engine.tensor_parallel_size: {engine.tensor_parallel_size} does not divide the processes of a job, "
            f"{study.num_processes} (gpus or processes, on all nodes); expected a divisor"
        )
    if study.gpus:
        return
    if engine.mode == "server":
        yield "rl.engine.mode: server sends weights from GPU to GPU, and gpus is 0; expected colocate"
    if engine.sleep_level:
        yield "rl.engine.sleep_level: 2 frees GPU memory, and gpus is 0; expected 0"
