"""A script that builds an environment, in an empty project."""

import time
from pathlib import Path
from types import ModuleType


class Builder:
    """The script under test; its commands are recorded, not run."""

    def __init__(self, module: ModuleType, made: Path) -> None:
        self.module = module
        self.made = made
        """A folder that every command leaves."""
        self.commands: list[str] = []
        self.fail_at: str | None = None

    def run(self, *command: object) -> None:
        """Replaces the call of a subprocess."""
        name = "pip" if "pip" in command else "venv"
        self.commands.append(name)
        time.sleep(0.05)
        if self.fail_at == name:
            raise SystemExit(1)
        self.made.mkdir(parents=True, exist_ok=True)

    def build(self) -> list[str]:
        """The commands of one call."""
        self.commands.clear()
        self.module.main()
        return list(self.commands)
