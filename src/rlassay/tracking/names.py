"""The tags by which a run is found again, and names that MLflow accepts."""

import re

STUDY = "rlassay.study"
"""Name of the results folder, which is the experiment's name too."""
POLICY = "rlassay.policy"
"""Folder of the policy, relative to the study's results; of a parent run, the folder of all its seeds."""
STAGE = "rlassay.stage"
"""`sft`, `rl`, `evaluation`; of a parent run `arm`, `warm start` or `model`; `report`."""
ARM = "rlassay.arm"
"""The arm; absent for what arms share."""
SEED = "rlassay.seed"
"""The seed; absent for what seeds share."""
IDENTITY = "rlassay.identity"
"""Which results on disk the run shows; it stays the same when a killed job goes on."""
CURRENT = "rlassay.current"
"""`true` for the results that lie on disk now, `false` for those that a later training replaced."""
DIGEST = "rlassay.digest."
"""Followed by the name of an artifact: the digest of what was uploaded."""


def legal_name(name: str) -> str:
    """`name` as MLflow takes it for a metric or a param: `pass@1` becomes `pass_at_1`.

    Letters, digits, `_ - . : /` and blanks pass, everything else becomes `_`; as in a path, no part may be empty
    or consist of dots.
    """
    parts = [re.sub(r"[^A-Za-z0-9_\-. :]", "_", part.replace("@", "_at_")) for part in name.split("/")]
    return "/".join(part if part.strip(".") else "_" * max(1, len(part)) for part in parts)
