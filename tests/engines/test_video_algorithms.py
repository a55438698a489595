"""Clips by the video input of Qwen-VL in the algorithms that add passes, or choose what trains: each sees its own."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlassay.divergence import FixedBeta
from rlassay.training import DynamicSampling, GroupPlan, KLControl, Replay
from rlassay.training.algorithms.critic import CriticOptions
from rlassay.training.batch import clips_of
from tests.engines.test_video import MAKERS, SIZE, Seen, video_trainer
from tests.engines.vllm_process import needs_torchvision

pytestmark = needs_torchvision


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("where", ["loss", "reward"])
def test_both_passes_of_an_exact_kl_see_their_own_clips(tmp_path: Path, kind: str, where: Any):
    trainer = video_trainer(tmp_path, kind, kl=KLControl(FixedBeta(0.1), kind="exact", where=where), beta=0.0)
    policy, reference = Seen(trainer.model, trainer), Seen(trainer.ref_model, trainer)
    trainer.train()
    assert policy.rows >= 10 * 6
    # TRL's pass, which the measured KL reads, and the KL's own: in each iteration of the loss, or once for the reward.
    assert reference.rows == 10 * (3 if where == "loss" else 2)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_critic_sees_its_own_clips(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind, critic=CriticOptions(value_learning_rate=1e-2), max_steps=4)
    backbone = trainer.xp_advantages.critic.own_backbone
    before = {name: each.clone() for name, each in backbone.named_parameters()}
    seen = Seen(SimpleNamespace(model=backbone), trainer)
    trainer.train()
    assert seen.rows == 2 * 10 * 2  # of two batches: values, and one epoch of learning
    moved = [name for name, each in backbone.named_parameters() if not torch.equal(each, before[name])]
    assert any("visual" in name for name in moved)


@pytest.mark.parametrize("kind", MAKERS)
def test_greedy_completions_see_their_own_clips_and_leave_those_of_the_batch(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind, advantage="remax")
    plain = video_trainer(tmp_path, kind)
    seen = Seen(trainer.model, trainer), Seen(plain.model, plain)
    for each in (trainer, plain):
        each.train()
    # Each of 5 prompts is sampled once more, and its completion is measured for the signals.
    assert seen[0].rows >= seen[1].rows + 5


class Scripted:
    """Rewards that leave the groups of some prompts, or of later calls, without differences."""

    __name__ = "scripted"

    def __init__(self, equal: set[str], calls: int = 1000) -> None:
        self.equal, self.calls = equal, calls

    def __call__(self, prompt_id: list[str], **_: Any) -> list[float]:
        self.calls -= 1
        return [
            1.0 if each in self.equal or self.calls < 0 else float(index % SIZE) for index, each in enumerate(prompt_id)
        ]


CHOSEN = {
    "dynamic sampling": (GroupPlan(dynamic_sampling=DynamicSampling()), Scripted({"p2"})),
    "replay": (GroupPlan(replay=Replay()), Scripted(set(), calls=1)),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("case", CHOSEN)
def test_chosen_groups_train_on_their_own_clips(tmp_path: Path, case: str, kind: str):
    plan, reward = CHOSEN[case]
    trainer = video_trainer(
        tmp_path, kind, groups=plan, reward_funcs=deepcopy(reward), num_iterations=1, max_steps=3, beta=0.0
    )
    seen, used = Seen(trainer.model, trainer), []
    trainer.xp_listeners.append(used.append)
    trainer.train()
    assert seen.rows > 3 * 10
    trained = [prompt for rollout in used for prompt, use in zip(rollout.prompt_ids, rollout.use, strict=True)
               if use in ("trained", "replayed")]  # fmt: skip
    if case == "dynamic sampling":
        assert "p2" not in trained
        assert len(set(trained)) > 1
    else:
        assert sum(use == "replayed" for rollout in used for use in rollout.use) == 2 * 10
        trainer.xp_groups.save(tmp_path)
        kept = trainer.xp_groups.buffer.entries
        trainer.xp_groups.load(tmp_path)
        for (_, before), (_, after) in zip(kept, trainer.xp_groups.buffer.entries, strict=True):
            assert after is not before
            for one, other in zip(clips_of(before.row["prompt"]), clips_of(after.row["prompt"]), strict=True):
                assert one.times == other.times
                assert [frame.tobytes() for frame in one.frames] == [frame.tobytes() for frame in other.frames]


def test_tools_beside_clips_are_refused(tmp_path: Path):
    trainer = video_trainer(tmp_path, "Qwen2.5-VL")
    trainer.tools = [print]
    with pytest.raises(ValueError, match="clips for the processor's video input, but tools: images only; show clips"):
        trainer._tokenize_prompts([trainer.train_dataset[0]["prompt"]])
