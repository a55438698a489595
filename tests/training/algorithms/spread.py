"""A program that makes the advantages of two generation batches, on one process or several, and resumes a run.

`torchrun --nproc_per_node 2 -m tests.training.algorithms.spread <folder> <completions per process>` writes
`<rank>.pt`: for each plan or algorithm and batch the process's own completions and advantages, and the metrics that it
would log; and the weights of a run that was not disturbed and of one that was resumed in the middle.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig

from rlassay.divergence import AdaptiveBeta
from rlassay.training import CreditGRPOTrainer, KLControl
from rlassay.training.algorithms.choice import GroupPlan
from rlassay.training.algorithms.critic import CriticOptions
from rlassay.training.algorithms.dynamic_sampling import DynamicSampling
from rlassay.training.algorithms.replay import Replay
from tests.training.tiny_lm import make_trainer, model, weights

SIZE = 4
COMPLETIONS = 16
PLANS = {
    "dynamic": GroupPlan(dynamic_sampling=DynamicSampling(max_resample=9, revisit=0.5)),
    "replay": GroupPlan(replay=Replay(size=3)),
    "both": GroupPlan(dynamic_sampling=DynamicSampling(max_resample=1), replay=Replay(size=3)),
    "part": GroupPlan(train_on=2),
}


def algorithms() -> dict[str, dict[str, Any]]:
    """Arguments of the trainer whose advantages need more than the rewards of a group."""
    return {
        "gae": {"critic": CriticOptions(value_learning_rate=1e-2, value_epochs=2)},
        "opo": {"advantage": "opo"},
        "remax": {"advantage": "remax"},
        "shrinkage": {"advantage": "shrinkage"},
        "kl": {
            "kl": KLControl(AdaptiveBeta(0.1, target=0.01, horizon=100.0), kind="mse", where="reward"),
            # The reference is the model without adapters, of which each process has its own.
            "peft_config": LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        },
    }


@torch.no_grad()
def leave_reference(policy: Any) -> None:
    """Give the adapters values that differ by position, the same on every process."""
    for name, parameter in policy.named_parameters():
        if "lora" in name:
            parameter.copy_(torch.sin(torch.arange(parameter.numel(), dtype=torch.float32)).view_as(parameter))


def rising(completions: list[str], prompts: list[str], **columns: Any) -> list[float]:
    """The place in the group, from 1, times the prompt's number; 0 for the dead prompts, which are the even ones."""
    numbers = [int(prompt.split()[1]) for prompt in prompts]
    places = [1 + numbers[:index].count(number) % SIZE for index, number in enumerate(numbers)]
    return [float(place * (number % 2) * number) for place, number in zip(places, numbers, strict=True)]


def whole_and_resumed(folder: Path, per_process: int) -> dict[str, Any]:
    """The weights before and after a run of four steps, and after one that continues from its second checkpoint."""
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": per_process}

    def trained(resume: str | None) -> dict[str, torch.Tensor]:
        plan = GroupPlan(dynamic_sampling=DynamicSampling(max_resample=9, revisit=0.5), replay=Replay(size=3))
        trainer = make_trainer(CreditGRPOTrainer, folder / "run", groups=plan, reward_funcs=rising, **settings)
        # As the stage does: `torch.load` maps no tensors to `cpu:0`, the device of one CPU process of several.
        trainer.args.__dict__["_setup_devices"] = torch.device("cpu")
        trainer.train(resume_from_checkpoint=resume)
        return weights(trainer)

    whole = trained(None)
    return {
        "whole": whole,
        "resumed": trained(str(folder / "run/checkpoint-2")),
        "start": dict(model().named_parameters()),
    }


def main(folder: Path, per_process: int) -> None:
    """Make the advantages of this process's part of two batches, under each plan and algorithm."""
    rank = PartialState(cpu=True).process_index
    first = rank * per_process
    results: dict[str, Any] = {}
    for name, ours in ({plan: {"groups": PLANS[plan]} for plan in PLANS} | algorithms()).items():
        trainer = make_trainer(
            CreditGRPOTrainer,
            folder,
            **ours,
            reward_funcs=rising,
            per_device_train_batch_size=per_process,
            top_k=1,  # greedy, so that the completions do not depend on a process's own random numbers
        )
        if "kl" in ours:
            leave_reference(trainer.model)
        trainer.model.train()
        for step, prompts in enumerate([(0, 1, 2, 3), (4, 5, 6, 8)]):
            rows = [trainer.train_dataset[prompt] for prompt in prompts for _ in range(SIZE)]
            trainer.state.global_step = step
            output = trainer._generate_and_score_completions(rows[first : first + per_process])
            logged = {each: values[-1] for each, values in trainer._metrics["train"].items() if "time/" not in each}
            per_token = output["advantages"].ndim == 2
            ids = zip(output["completion_ids"], output["completion_mask"], strict=True)
            results[f"{name}/{step}"] = {
                "prompts": [row["prompt_id"] for row in trainer.xp_batch.rows],
                "ids": [row[mask.bool()].tolist() for row, mask in ids],
                "advantages": (trainer.xp_batch.advantages_B if per_token else output["advantages"]).tolist(),
                "items": output["num_items_in_batch"].item(),
                "metrics": logged,
            }
    results["weights"] = whole_and_resumed(folder, per_process)
    torch.save(results, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
