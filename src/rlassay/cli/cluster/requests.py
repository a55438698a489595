"""Resources that each rule's job requests of a cluster: time, memory, GPUs, nodes and tasks."""

from collections.abc import Callable
from typing import Any

from rlassay.cli.plans.estimates import parameters
from rlassay.cli.stages import STAGES
from rlassay.config import Settings, Study
from rlassay.config.engine import ANSWERING, on_server
from rlassay.config.settings import Stage
from rlassay.models.vllm_engine import kv_cache_mib
from rlassay.rewards import IN_THEIR_OWN_PROCESS

BASE = 2500
"""MiB of a process besides weights. They hold Python, torch, rows, and Snakemake's and MLflow's processes."""
UNKNOWN = 48_000
"""MiB of a process whose model has no size in its name."""
COPIES = {"sft_train": 4, "rl_train": 5, "generate": 2, "held_out_curve": 2}
"""Copies of the weights, float32, that a process on CPU holds. They are weights, gradients, AdamW's moments, a
reference."""
COPIES_ON_GPU = 2
"""Copies of the weights that pass through host memory while they are loaded or saved."""
OFFLOADED = 4
"""Copies that a training job's processes with `cpu_offload` hold together. They are weights, gradients, AdamW's
moments."""
BYTES = 4
"""Bytes of a weight, estimated as float32; files in bfloat16 have half as many."""
MIB = 2**20

Memory = Callable[[Any, int], int]
"""Wildcards and the number of the attempt, from 1 -> MiB."""


def requests(study: Study, settings: Settings, stage: Stage) -> dict[str, Any]:
    """The `resources` of a rule; a local Snakemake limits those that its profile caps: `gpu` and `vllm_server`.

    `mem_mb` grows with each attempt, for a job that ran out of memory. A job of several nodes is one task per node,
    which the plug-in calls MPI.
    """
    shared, study = STAGES[stage].in_processes, study.placed(stage)
    asked: dict[str, Any] = {
        "mem_mb": _growing(memory_mb(study, settings, stage)),
        "runtime": settings.resources.minutes_of(stage),
    }
    if stage == "rl_train" and any(on_server(arm.recipe.rl.engine) for arm in study.arms.values()):
        asked |= {"vllm_server": 1}  # runs on one server wait for each other, with their GPUs
    if shared and study.nodes > 1:
        gpus = {"gres": f"gpu:{study.gpus}", "tasks_per_gpu": 0} if study.gpus else {}
        return asked | {"nodes": study.nodes, "tasks": study.nodes, "mpi": "srun"} | gpus
    beside = study.judging_gpus if stage == "rl_train" else 0
    return asked | {"gpu": study.gpus + beside if shared else _scorers(study) if stage == "score" else 0}


def memory_mb(study: Study, settings: Settings, stage: Stage) -> int:
    """MiB that a job needs on each node: the setting, else an estimate.

    The estimate follows from the size of the models.
    """
    given = settings.resources.memory_mb.get(stage)
    if given is not None:
        return given
    if not STAGES[stage].in_processes:
        return 2 * BASE
    study = study.placed(stage)
    copies: float = COPIES_ON_GPU if study.gpus else COPIES[stage]
    copies += OFFLOADED / study.num_processes if study.cpu_offload and stage not in ANSWERING else 0
    counts = [parameters(arm.recipe.model) for arm in study.arms.values()]
    known = [count for count in counts if count is not None]
    with_vllm = _samples_on_cpu(study, stage)
    copies += with_vllm and stage == "rl_train"  # `COPIES` of the stages that generate include it
    each = BASE + int(copies * max(known)) * BYTES // MIB if len(known) == len(counts) else UNKNOWN
    own = study.processes_per_node * (each + (kv_cache_mib() if with_vllm else 0))
    return own + (_judging_mb(study, settings) if stage == "rl_train" else 0)


def _judging_mb(study: Study, settings: Settings) -> int:
    """MiB of the process beside an RL job that evaluates its held-out curve; 0 without it."""
    alone = study.model_copy(update={"gpus": study.judging_gpus, "processes": 1})
    return study.judging_processes * memory_mb(alone, settings, "held_out_curve")


def _samples_on_cpu(study: Study, stage: Stage) -> bool:
    """Whether vLLM samples in the stage's jobs with its keys and values in host memory."""
    if study.gpus:
        return False
    if stage in ANSWERING:
        return study.evaluation.engine.kind == "vllm"
    return stage == "rl_train" and any(arm.recipe.rl.engine.kind == "vllm" for arm in study.arms.values())


def _scorers(study: Study) -> int:
    """GPUs of a job that scores: one if its rewards load models.

    The models run in another process.
    """
    return min(1, study.gpus) if IN_THEIR_OWN_PROCESS & set(study.rewards) else 0


def _growing(amount: int) -> Memory:
    def memory(wildcards: Any, attempt: int) -> int:
        return amount * attempt

    return memory
