"""What a job tells the process that feeds MLflow for it."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class FeedJob:
    """The one line that the feeding process reads."""

    study: str
    """The resolved study, as JSON."""
    root: str
    """Folder of its results."""
    policy: str | None
    """The policy that the job works on; None feeds the whole study."""
    uri: str
    """Tracking URI."""
    interval: float
    """Seconds between two batches."""
    patience: int
    """Seconds after the end of the job within which MLflow must have taken the rest."""
    backfill: str
    """The command that writes later what is missing now."""

    def to_json(self) -> str:
        """The line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, line: str) -> "FeedJob":
        """The job behind a line of `to_json`."""
        return cls(**json.loads(line))

    def warning(self, reason: str) -> str:
        """One line for the user."""
        first = " ".join(reason.split())[:200]
        return (
            f"warning: MLflow at {self.uri} is behind ({first}). The files on disk are complete and nothing waits "
            f"for it; to fill it in later: {self.backfill}"
        )
