"""What the rules share: the study's policies, what identifies each result, and how a job is started."""

import hashlib
import os
import sys

from filelock import FileLock

import rlassay
from rlassay.cli.stages import STAGES
from rlassay.config.fingerprints import code_digest, data_id, evaluation_id, score_id, sft_policy
from rlassay.config.policies import policies

POLICIES = policies(STUDY)
CODE = {name: code_digest(stage.module) for name, stage in STAGES.items()}
# What the report shows besides results: labels, colours and titles too, and the page's own looks.
TEMPLATES = [file.read_text() for file in sorted((Path(rlassay.__file__).parent / "report/templates").iterdir())]
SHOWN = hashlib.sha256(repr((STUDY, SETTINGS.report, TEMPLATES)).encode()).hexdigest()[:8]
# Not Snakemake's own lock, which `kill -9` leaves behind: the kernel frees this one however the process ends.
STUDY_LOCK = FileLock(LAYOUT.root / ".lock")
# Jobs run the Python that runs Snakemake, even where its environment is not activated.
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]))
# Where the study is written down identifies no result, so it reaches the jobs past their params.
WHERE = f"--study {SETTINGS.study} --scale {SETTINGS.scale or 'null'} --results {SETTINGS.results}"
shell.prefix(f"set -euo pipefail; STUDY='{WHERE}'; ")


wildcard_constraints:
    policy="|".join(POLICIES),
    set="|".join(STUDY.evaluation.sets),


def fingerprint(wildcards):
    """What identifies the weights of a policy."""
    return POLICIES[wildcards.policy].fingerprint


def evaluation_fingerprint(wildcards):
    """What identifies how a policy is made to answer."""
    return evaluation_id(STUDY, POLICIES[wildcards.policy].recipe)


def warm_start(wildcards):
    """What a run begins with: its warm start, or only the data when its arm has no sft section."""
    run = POLICIES[wildcards.policy]
    policy = sft_policy(STUDY, run.recipe, run.seed)
    return LAYOUT.data_manifest if policy is None else LAYOUT.train_manifest(policy)


def weights(wildcards):
    """What a policy's answers need: its training, or only the data for a model before any training."""
    trained = POLICIES[wildcards.policy].stage != "model"
    return LAYOUT.train_manifest(wildcards.policy) if trained else LAYOUT.data_manifest
