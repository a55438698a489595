"""The critic: it learns, its values make the advantages, and it survives a kill."""

import json
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from rlassay.advantages import gae, terminal_rewards, whiten
from rlassay.advantages.gae import explained_variance, value_errors
from rlassay.config.algorithm import GAEAdvantage
from rlassay.layout import Layout
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.critic import Critic, CriticOptions, sum_gradients
from rlassay.training.rl import critic_options, run_rl
from tests.launcher import Launcher, wait_until
from tests.training.conftest import copied
from tests.training.short_run import command, has_logged, load_short, policy_of, proof, timeless_metrics, write_study
from tests.training.tiny_lm import make_trainer, weights

GAE: dict[str, Any] = {"kind": "gae", "value_learning_rate": 1e-2, "value_epochs": 2}
FAST = CriticOptions(value_learning_rate=1e-2)


def batch_of(trainer: Any) -> dict[str, Tensor]:
    return trainer._generate_and_score_completions([trainer.train_dataset[index // 4] for index in range(8)])


def own_values(critic: Critic, output: dict[str, Tensor]) -> Tensor:
    """The values by one forward pass of our own over the whole batch."""
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    seen = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    backbone = critic.own_backbone or critic.trainer.model.model
    hidden = backbone(input_ids=ids, attention_mask=seen).last_hidden_state
    return critic.head(hidden)[:, output["prompt_ids"].shape[1] - 1 : -1, 0]


def test_the_loss_of_values_by_hand():
    # Return 10: 3 is past 1 + .5, whose error 8.5 is larger; .8 is within. Return 2: the error of 3 is larger.
    values, old, returns = torch.tensor([[3.0, 0.8, 3.0]]), torch.ones(1, 3), torch.tensor([[10.0, 10.0, 2.0]])
    values.requires_grad_()
    errors = value_errors(values, old, returns, 0.5)
    assert errors[0].tolist() == pytest.approx([8.5**2 / 2, 9.2**2 / 2, 1 / 2])
    errors.sum().backward()
    assert values.grad is not None
    assert values.grad[0].tolist() == pytest.approx([0.0, -9.2, 1.0])


def test_explained_variance_by_hand():
    returns, counted = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[True, True, False]])
    assert explained_variance(torch.tensor([[1.0, 3.0, 0.0]]), returns, counted) == 1.0
    assert explained_variance(torch.tensor([[7.0, 7.0, 0.0]]), returns, counted) == 0.0
    # Errors 0 and 1: variance .5 of 2.
    assert explained_variance(torch.tensor([[1.0, 2.0, 0.0]]), returns, counted) == pytest.approx(0.75)
    assert torch.isnan(torch.tensor(explained_variance(returns, torch.ones(1, 3), counted)))


def check_first_step(critic: Critic, before: dict[str, Tensor], gradients: tuple[Tensor, ...]) -> None:
    """AdamW's first step is the learning rate, 1e-2, against the sign of each gradient."""
    for (name, parameter), gradient in zip(critic.trained().items(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)
        large = gradient.abs() > 1e-4
        moved = (parameter.detach() - before[name])[large]
        torch.testing.assert_close(moved, -1e-2 * gradient[large].sign(), atol=2e-4, rtol=1e-2)


@pytest.mark.parametrize("value_model", ["separate", "head"])
def test_its_values_make_the_advantages_and_it_learns_the_returns(value_model: Any, tmp_path: Path):
    options = CriticOptions(gamma=0.9, lam=0.8, value_model=value_model, value_learning_rate=1e-2)
    # Micro-batches of three, so that chunks of the batch have several sizes.
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, critic=options, beta=0.0)
    trainer.args.per_device_train_batch_size = 3
    critic: Critic = trainer.xp_advantages.critic
    with torch.no_grad():
        critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    before = {name: value.detach().clone() for name, value in critic.trained().items()}
    policy = weights(trainer)
    trainer.model.train()
    seen: list[Any] = []
    trainer.xp_listeners.append(seen.append)
    values_before: list[Tensor] = []
    learn = critic.learn

    def spied(output: dict[str, Any], values_BT: Tensor, returns_BT: Tensor, counted_BT: Tensor) -> dict[str, float]:
        values_before.append(values_BT)
        torch.testing.assert_close(values_BT, own_values(critic, output).detach())
        expected = value_errors(own_values(critic, output), values_BT, returns_BT, 0.2)[counted_BT].mean()
        gradients = torch.autograd.grad(expected, list(critic.trained().values()))
        trainer.args.max_grad_norm = 1e6
        metrics = learn(output, values_BT, returns_BT, counted_BT)
        assert metrics["critic/value_loss"] == pytest.approx(expected.item(), rel=1e-5)
        check_first_step(critic, before, gradients)
        return metrics

    critic.learn = spied  # type: ignore[method-assign]
    output = batch_of(trainer)
    mask = output["completion_mask"]
    totals = seen[0].weighted.nansum(dim=1)
    advantages, _ = gae(terminal_rewards(totals, mask), values_before[0], mask, 0.9, 0.8)
    torch.testing.assert_close(output["advantages"], whiten(advantages, mask.bool()))
    means = (output["advantages"] * mask).sum(dim=1) / mask.sum(dim=1)
    torch.testing.assert_close(seen[0].advantages, means)
    assert len(before) == (1 + 1 if value_model == "head" else len(before))
    assert any("backbone" in name for name in before) == (value_model == "separate")
    assert all(torch.equal(policy[name], value) for name, value in weights(trainer).items())


def test_the_values_come_to_explain_the_rewards(tmp_path: Path):
    def even_prompt(completions: list[str], prompts: list[str], **columns: Any) -> list[float]:
        return [float(int(prompt.split()[1]) % 2 == 0) for prompt in prompts]

    options = CriticOptions(value_learning_rate=3e-3, value_epochs=2, value_clip=1.0)
    settings: dict[str, Any] = {"max_steps": 25, "learning_rate": 1e-9, "reward_funcs": even_prompt}
    settings["per_device_train_batch_size"] = 48  # all twelve prompts
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, critic=options, **settings)
    trainer.train()
    logged = trainer.state.log_history[:25]
    # All values are 0 at first, which explains nothing.
    assert logged[0]["critic/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert logged[-1]["critic/explained_variance"] > 0.9
    assert logged[-1]["critic/value_loss"] < 0.1 * logged[0]["critic/value_loss"]


def test_an_unscored_completion_is_left_out(tmp_path: Path):
    def reward(completions: list[str], **columns: Any) -> list[float | None]:
        return [None, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]

    trainer = make_trainer(CreditGRPOTrainer, tmp_path, critic=FAST, reward_funcs=reward)
    trainer.model.train()
    output = batch_of(trainer)
    counted = output["completion_mask"].bool()
    counted[0] = False
    assert not output["advantages"][0].any()
    assert output["advantages"][counted].mean().item() == pytest.approx(0.0, abs=1e-5)
    assert output["advantages"][counted].var().item() == pytest.approx(1.0, abs=1e-4)


def test_credit_multiplies_advantages_per_token(tmp_path: Path):
    def first_two(signals: Any) -> Tensor:
        return (signals.completion_mask.cumsum(dim=1) <= 2) & signals.completion_mask.bool()

    plain = make_trainer(CreditGRPOTrainer, tmp_path, critic=FAST)
    credited = make_trainer(CreditGRPOTrainer, tmp_path, critic=FAST, credit=first_two)
    outputs: list[dict[str, Tensor]] = []
    for trainer in (plain, credited):
        trainer.model.train()
        torch.manual_seed(3)
        outputs.append(batch_of(trainer))
    kept = outputs[0]["completion_mask"].cumsum(dim=1) <= 2
    assert torch.equal(outputs[1]["advantages"], outputs[0]["advantages"] * kept)


def test_with_an_adapter_the_critic_trains_an_adapter_of_its_own(tmp_path: Path):
    def with_adapter(**arguments: Any) -> Any:
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        return CreditGRPOTrainer(**arguments, peft_config=lora)

    trainer = make_trainer(with_adapter, tmp_path, critic=FAST)
    trained = trainer.xp_advantages.critic.trained()
    assert {name.split(".")[-3] for name in trained if name.startswith("backbone")} == {"lora_A", "lora_B"}
    policy = {id(parameter) for parameter in trainer.model.parameters()}
    assert not policy & {id(parameter) for parameter in trained.values()}
    trainer.train()


def test_processes_add_up_gradients_that_only_some_of_them_have():
    """A process without images reduces the gradients of the vision tower too, or the others would wait for it."""
    head, vision, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    head.grad = torch.tensor([1.0, 2.0])
    # Of the other process: which parameters have gradients, then these.
    others = [torch.tensor([1.0, 1.0, 0.0]), torch.tensor([10.0, 20.0]), torch.tensor([3.0, 4.0])]

    def reduce(values: Tensor, reduction: str) -> Tensor:
        return values + others.pop(0)

    sum_gradients(SimpleNamespace(num_processes=2, reduce=reduce), [head, vision, unused])
    assert not others
    assert head.grad.tolist() == [11.0, 22.0]
    assert vision.grad is not None
    assert vision.grad.tolist() == [3.0, 4.0]
    assert unused.grad is None


@pytest.mark.parametrize("value_model", ["separate", "head"])
def test_resumed_from_a_checkpoint_it_ends_with_the_same_weights(value_model: Any, tmp_path: Path):
    options = CriticOptions(value_model=value_model, value_learning_rate=1e-2, value_epochs=2)

    def build() -> Any:
        return make_trainer(
            CreditGRPOTrainer, tmp_path, max_steps=4, critic=options, save_strategy="steps", save_steps=2
        )

    whole, resumed = build(), build()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name
    for name, value in whole.xp_advantages.critic.trained().items():
        assert torch.equal(resumed.xp_advantages.critic.trained()[name], value), name
    (tmp_path / "checkpoint-2/critic.pt").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-2: got a checkpoint without critic\.pt"):
        build().train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_killed_outright_a_run_with_images_ends_with_the_uninterrupted_weights(
    warm_started: Path, launcher: Launcher, tmp_path: Path
):
    layouts: list[Layout] = [copied(warm_started, tmp_path / name) for name in ("whole", "killed")]
    study = load_short(tmp_path, rl__advantage=GAE)
    write_study(tmp_path, rl__advantage=GAE)
    run_rl(study, layouts[0], policy_of(study))
    arguments = ["rl_train", *command(tmp_path, layouts[1].root.parent)]
    attempt = launcher.start(arguments, tmp_path / "log")
    wait_until(partial(has_logged, layouts[1], 5))
    attempt.send(signal.SIGKILL)
    assert attempt.wait() == -9
    assert launcher.start(arguments, tmp_path / "log").wait() == 0, (tmp_path / "log").read_text()
    whole, killed = (proof(layout) for layout in layouts)
    assert [resume["step"] for resume in killed["resumes"]] in ([4], [6])
    assert killed["sha256"] == whole["sha256"]
    assert timeless_metrics(layouts[1]) == timeless_metrics(layouts[0])
    assert json.dumps(timeless_metrics(layouts[0])[-1]["critic/value_loss"]) != "null"


def test_the_section_of_a_study_has_the_options_and_defaults_of_the_critic():
    section = GAEAdvantage(kind="gae")
    assert CriticOptions(**section.model_dump(exclude={"kind"})) == CriticOptions()


def test_a_study_chooses_the_critic(tmp_path: Path):
    rl = policy_of(load_short(tmp_path, rl__advantage={"kind": "gae", "lam": 0.5})).recipe.rl
    assert critic_options(rl) == CriticOptions(lam=0.5)
    assert critic_options(policy_of(load_short(tmp_path)).recipe.rl) is None


@pytest.mark.parametrize(("name", "value"), [("gamma", 1.5), ("lam", -0.1), ("value_clip", 0.0), ("value_epochs", 0)])
def test_options_out_of_range_are_refused(name: str, value: Any):
    with pytest.raises(ValueError, match=rf"CriticOptions.{name}: got {value!r}"):
        CriticOptions(**{name: value})


def test_a_critic_beside_an_estimator_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="critic: got one beside an advantage estimator"):
        make_trainer(CreditGRPOTrainer, tmp_path, critic=FAST, advantage="rloo")


def test_without_a_largest_norm_it_learns_all_the_same(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, critic=FAST, max_grad_norm=0.0, max_steps=1)
    trainer.train()
    assert trainer.xp_advantages.critic.head.bias.abs().item() == pytest.approx(1e-2, rel=1e-3)
