"""How attention is shared out between text and image, from attention mass and token counts."""

import torch
from jaxtyping import Float, Real
from torch import Tensor

Count = Real[Tensor, "*#axes"] | int
"""Numbers of tokens, which may be broadcast."""


def modality_dominance(
    text_mass: Float[Tensor, "*axes"],
    vision_mass: Float[Tensor, "*axes"],
    text_tokens: Count,
    vision_tokens: Count,
) -> Float[Tensor, "*axes"]:
    """Modality dominance MDI, which others call VGR: `(text_mass / text_tokens) / (vision_mass / vision_tokens)`.

    Above 1 text is attended to more densely than the image; lower is more image. No unit: scaling both masses changes
    nothing. NaN, "cannot be said", without a text token, without an image token, or with neither mass; infinite when
    all attention is on text, 0 when all of it is on the image.

    It drifts with the image's resolution, since the token count is in it: log the counts beside it.

    Args:
        text_mass, vision_mass: attention mass on each kind of prompt token, any axes, such as (B, T) or (L, B).
        text_tokens, vision_tokens: how many prompt tokens of each kind; may be broadcast.

    Source: "When Language Overrules" (arXiv 2508.10552), eq. 1. Departs from JuncyLu/trl_DAPO, where no image gives
    infinity and the text mass counts special tokens that the text count leaves out.
    """
    counted = torch.as_tensor((text_tokens > 0) & (vision_tokens > 0), device=text_mass.device)
    return torch.where(counted, text_mass * vision_tokens / (vision_mass * text_tokens), torch.nan)


def attention_efficiency(
    mass: Float[Tensor, "*axes"],
    other_mass: Float[Tensor, "*axes"],
    tokens: Count,
    other_tokens: Count,
) -> Float[Tensor, "*axes"]:
    """Attention efficiency AEI of one kind of token: its share of the attention over its share of the tokens.

    `AEI = (mass / (mass + other_mass)) / (tokens / (tokens + other_tokens))`, no unit. 1 is its fair share. MDI is
    AEI of text over AEI of the image, and the two, weighted by their shares of the tokens, sum to 1. NaN without a
    token of this kind or without any mass.

    Args:
        mass, tokens: attention mass on this kind of token, and how many there are; any axes, counts broadcast.
        other_mass, other_tokens: the same of the other kind.

    Source: "When Language Overrules" (arXiv 2508.10552), eqs. 2-4.
    """
    share = mass / (mass + other_mass)
    return torch.where(
        torch.as_tensor(tokens > 0, device=mass.device), share * (tokens + other_tokens) / tokens, torch.nan
    )
