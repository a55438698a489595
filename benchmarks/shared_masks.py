"""Variance of perception over random masks, with one mask per completion and with one per prompt.

The warm start of a finished study has answered prompts several times; perception of these completions is measured with
`--masks` draws of the masks. Per prompt, one draw is one estimate of three things: the perception of each token, the
mean of each completion less that of its group (which trajectory scaling compares), and the mean of the group. Printed
are their variances over draws, as means over tokens, completions and prompts, and the ratio of the two choices.
Run from the project's root: python -m benchmarks.shared_masks [--study NAME] [--results FOLDER] [--masks N]
"""

import argparse
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlassay.config import load_study
from rlassay.config.policies import policies
from rlassay.images import StudyImages
from rlassay.layout import WEIGHTS, Layout
from rlassay.models.policy import ChatFormat, chat_format, load_policy, tokenizer_of
from rlassay.records import CompletionRow, PromptRow, read_rows
from rlassay.signals import Masking, ScoringConfig
from rlassay.signals.measuring import RolloutBatch, SignalComputer, SignalPlan

BLOCK = 4
"""Side of a masked block, pixels."""


def answered(layout: Layout, folder: str, prompts: int) -> list[list[CompletionRow]]:
    """The sampled completions of the first prompts of the test set, by prompt."""
    rows = [row for row in read_rows(layout.completions(folder, "test"), CompletionRow) if row.mode == "sampled"]
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.prompt_id)]
    return groups[:prompts]


def rollout(flat: list[CompletionRow], rows: dict[str, PromptRow], chat: ChatFormat, layout: Layout) -> RolloutBatch:
    """These completions as a generation batch of step 0."""
    images = StudyImages(layout.data)
    tokens: Any = tokenizer_of(chat.processor)
    ids = [tokens(row.text, add_special_tokens=False)["input_ids"] for row in flat]
    return RolloutBatch(
        prompts=[chat.prompt(rows[row.prompt_id]) for row in flat],
        images=[images(chat.images(rows[row.prompt_id])) for row in flat],
        completion_ids=[[*each, tokens.eos_token_id] for each in ids],
        prompt_ids=[row.prompt_id for row in flat],
        samples=[row.sample for row in flat],
        step=0,
    )


def variances(draws: Tensor, mask: Tensor, size: int) -> tuple[float, float, float]:
    """Variance of a token, of a completion less its group, and of a group, from (draws, batch, time)."""
    completions = (draws * mask).sum(dim=2) / mask.sum(dim=1)
    groups = completions.view(len(draws), -1, size)
    within = groups - groups.mean(dim=2, keepdim=True)
    tokens = draws.var(dim=0)[mask.bool()]
    return tokens.mean().item(), within.var(dim=0).mean().item(), groups.mean(dim=2).var(dim=0).mean().item()


def main() -> None:
    """Print the three variances with each choice, and their ratios last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--study", default="digits", help="a finished study of images [%(default)s]")
    parser.add_argument("--results", type=Path, default=Path("results"), help="its results [%(default)s]")
    parser.add_argument("--masks", type=int, default=40, help="draws of the masks [%(default)s]")
    parser.add_argument("--prompts", type=int, default=24, help="prompts [%(default)s]")
    args = parser.parse_args()
    study = load_study(args.study)
    layout = Layout(root=args.results / study.id)
    start = next(policy for policy in policies(study).values() if policy.stage == "sft")
    model, processor = load_policy(start.recipe.model, layout.state(start.folder) / WEIGHTS)
    groups = answered(layout, start.folder, args.prompts)
    rows = {row.prompt_id: row for row in read_rows(layout.split("test"))}
    batch = rollout([row for group in groups for row in group], rows, chat_format(processor, start.recipe), layout)
    lengths = torch.tensor([len(ids) for ids in batch.completion_ids])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).float()
    found: list[tuple[float, ...]] = []
    for mask_per in ("completion", "prompt"):
        plan = SignalPlan(masking=Masking(block=BLOCK), mask_per=mask_per)
        computer = SignalComputer(processor, plan, frozenset({"perception"}), ScoringConfig(), seed=1)
        draws = [computer(model, replace(batch, step=step)).perception_BT for step in range(1, args.masks + 1)]
        found.append(variances(torch.stack([each for each in draws if each is not None]), mask, len(groups[0])))
    for name, own, shared in zip(("token", "completion less its group", "group"), *found, strict=True):
        print(f"variance of a {name}: {own:.4g} and {shared:.4g}, ratio {shared / own:.2f}")


if __name__ == "__main__":
    main()
