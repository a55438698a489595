"""Where the report's numbers come from, what they cost, and how to get them again."""

from rlassay.records import Record, SplitFacts


class Command(Record):
    """How to get one thing again."""

    target: str
    """What it makes, for readers."""
    command: str
    """One shell line, run in the project's root."""


class Missing(Record):
    """One file that a complete report would have used."""

    path: str
    """Relative to the study's results folder."""
    needed_for: str
    """What is absent from the report because of it."""
    command: str
    """How to make it."""


class PolicyFacts(Record):
    """Provenance of one trained policy."""

    policy: str
    """Folder relative to the study's results folder."""
    row: str
    """Its table row."""
    seed: int | None
    """Its seed; null for a warm start shared by all seeds."""
    fingerprint: str
    """Hash of everything that identifies the result."""
    steps: int
    """Optimiser steps done."""
    max_steps: int
    """Optimiser steps asked for."""
    sha256: str
    """Digest of the weights; of several files, the digest of their names and digests."""
    gpus: int
    """GPUs that it trained on."""
    versions: dict[str, str]
    """Library -> version."""


class SampleRow(Record):
    """One row of a split, shown as it is."""

    prompt_id: str
    """Which prompt."""
    question: str
    """The question, shortened."""
    choices: tuple[str, ...]
    """The option texts, shortened; empty for free answers."""
    answer: str
    """The gold answer, or its letter, shortened."""
    demonstration: str | None
    """The completion to imitate, shortened; null outside of the warm start."""
    images: tuple[str, ...]
    """Paths relative to the report folder."""
    clips: tuple[str, ...]
    """Names of the clips."""


class DataSplit(SplitFacts):
    """One data split."""

    split: str
    """Its name."""
    duplicates: int
    """Records refused because the split has nearly the same prompt."""
    leaks: int
    """Records refused because an evaluation split has nearly the same prompt or image."""
    samples: tuple[SampleRow, ...]
    """A few rows, evenly spaced over the split."""


class PolicyCost(Record):
    """What one training job took."""

    policy: str
    """Folder relative to the study's results folder."""
    label: str
    """Name of its row on the page."""
    seed: int | None
    """Its seed; null for a warm start shared by all seeds."""
    seconds: float
    """Wall time of all attempts, seconds."""
    generated_tokens: int
    """Tokens sampled during training."""
    peak_memory_mb: float | None
    """Highest memory use, MB (GPU memory where there is one)."""
    seconds_per_step: dict[str, float]
    """Mean seconds per optimiser step: `step`, and of it `generation`, `reward` and, where measured, `signals`."""
    signals_share: float | None = None
    """Part of the time in steps that went into measuring signals; null = none was timed."""


class PolicyResumes(Record):
    """Where one training job was resumed."""

    policy: str
    """Folder relative to the study's results folder."""
    steps: tuple[int, ...]
    """The steps it went on from; empty = never interrupted."""
