"""The `data` section: where the prompts come from."""

from typing import Annotated, Literal

from pydantic import Field

from rlassay.config.section import Section

Count = Annotated[int, Field(ge=1)]
SplitName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Digits(Section):
    """Two real handwritten digits side by side and a question about them, with lettered options."""

    kind: Literal["digits"]
    """Selects this section."""
    seed: int = Field(default=0, ge=0)
    """Seed of the image split, the pairs, the questions and the demonstrations."""
    splits: dict[SplitName, Count] = Field(default={"sft": 6000, "train": 2000, "test": 400})
    """Rows per split; `sft` and `train` share their digit images, every other split draws on held-out digits."""
    held_out: float = Field(default=0.3, gt=0, lt=1)
    """Share of the 1,797 digit images kept for the splits other than `sft` and `train`."""
    num_choices: int = Field(default=4, ge=2, le=10)
    """Lettered options per question."""
    guess_share: float = Field(default=0.40, ge=0, le=1)
    """Share of demonstrations that answer at once with a guessed letter."""
    misread_share: float = Field(default=0.15, ge=0, le=1)
    """Share of demonstrations that think first and then name a wrong letter; the rest think and are right."""


class Jsonl(Section):
    """Rows that are already in this project's format: `<folder>/<split>.jsonl` and the images they name."""

    kind: Literal["jsonl"]
    """Selects this section."""
    folder: str = Field(min_length=1)
    """Folder of the files, which is also the root that image paths may not leave."""
    splits: dict[SplitName, Count | None] = Field(default={"train": None, "test": None})
    """Rows to take from the head of each file; null takes all."""


DataConfig = Annotated[Digits | Jsonl, Field(discriminator="kind")]
