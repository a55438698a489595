"""Train the short run with its engine replaced by a vLLM server: `python -m tests.training.run_on_server FOLDER URL`.

A study file could not ask for it without a GPU; the job comes as far as its lock on the server.
"""

import sys
from dataclasses import replace
from pathlib import Path

from rlassay.config.engine import VLLMSampler
from rlassay.training.rl import run_rl
from tests.training.short_run import Layout, load_short, policy_of


def main(folder: Path, address: str) -> None:
    """Train on the results in `folder`."""
    study = load_short(folder, sft=None)
    policy = policy_of(study)
    engine = VLLMSampler(kind="vllm", mode="server", server_base_url=address)
    rl = policy.recipe.rl.model_copy(update={"engine": engine})
    on_server = replace(policy, recipe=policy.recipe.model_copy(update={"rl": rl}))
    run_rl(study, Layout(root=folder / "results/digits"), on_server)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
