"""What a batch of rewards says about each of them: how much it judges, tells apart, and goes along with. Pure."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def same_in_group(raw: Float[Tensor, "batch rewards"], num_generations: int) -> Bool[Tensor, "groups rewards"]:
    """In which groups a reward says the same of all completions that it judged, or judged none (NaN).

    This does not depend on how rewards are summed and normalised: such a group adds nothing to the advantages either
    way.
    """
    grouped = raw.view(-1, num_generations, raw.shape[1])
    unjudged = torch.isnan(grouped)
    highest = grouped.masked_fill(unjudged, -torch.inf).amax(dim=1)
    lowest = grouped.masked_fill(unjudged, torch.inf).amin(dim=1)
    return highest <= lowest


def correlation(one: Float[Tensor, "batch"], other: Float[Tensor, "batch"]) -> float:
    """Pearson's correlation over the completions for which both are known (not NaN).

    NaN where fewer than two are, or where one of the two does not vary among them.
    """
    both = ~(torch.isnan(one) | torch.isnan(other))
    if both.sum() < 2:
        return torch.nan
    pair = torch.stack([one[both], other[both]]).double()
    if (pair.amax(dim=1) == pair.amin(dim=1)).any():
        return torch.nan
    centred = pair - pair.mean(dim=1, keepdim=True)
    products = centred @ centred.T
    return float((products[0, 1] / (products[0, 0] * products[1, 1]).sqrt()).clamp(-1, 1))


def reward_figures(
    names: list[str], raw: Float[Tensor, "batch rewards"], lengths: Float[Tensor, "batch"], num_generations: int
) -> dict[str, float]:
    """The metrics `rewards/<name>/...` of a batch.

    `coverage`, the share of completions that were judged; `frac_zero_std`, the share of groups in which the reward says
    the same of all; `correlation/<name of a later reward>` and `correlation/length`.

    Args:
        names: of the rewards.
        raw: values as the rewards gave them; NaN = cannot be judged.
        lengths: tokens of each completion.
        num_generations: completions per prompt; a group's are neighbours.
    """
    raw, lengths = raw.cpu(), lengths.cpu()
    judged = (~torch.isnan(raw)).float().mean(dim=0)
    same = same_in_group(raw, num_generations).float().mean(dim=0)
    figures: dict[str, float] = {}
    for index, name in enumerate(names):
        figures[f"rewards/{name}/coverage"] = judged[index].item()
        figures[f"rewards/{name}/frac_zero_std"] = same[index].item()
        for later in range(index + 1, len(names)):
            key = f"rewards/{name}/correlation/{names[later]}"
            figures[key] = correlation(raw[:, index], raw[:, later])
        figures[f"rewards/{name}/correlation/length"] = correlation(raw[:, index], lengths)
    return figures
