"""Shared by the rules: the study's policies, the digests that identify results, and how a job starts."""

import hashlib
import os
import sys

import rlassay
from rlassay.cli.cluster.requests import requests
from rlassay.cli.stages import STAGES, shell_prefix
from rlassay.config.fingerprints import code_digest, data_id, decision_id, evaluation_id, score_id
from rlassay.config.policies import asked_policies, folder_pattern, policies, undecided_arms

POLICIES = policies(STUDY)
CODE = {name: code_digest(stage.module) for name, stage in STAGES.items()}
# The report depends on labels, colours and titles too, and on the templates of the page.
TEMPLATES = [file.read_text() for file in sorted((Path(rlassay.__file__).parent / "report/templates").iterdir())]
SHOWN = hashlib.sha256(repr((STUDY, SETTINGS.report, TEMPLATES)).encode()).hexdigest()[:8]
# Resources that a job of each rule requests of a cluster.
REQUESTS = {name: requests(STUDY, SETTINGS, name) for name in STAGES}
# Jobs run the Python that runs Snakemake, even where its environment is not activated.
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]))
# The path of the study's files identifies no result, so it is not a param of the jobs.
shell.prefix(shell_prefix(SETTINGS))


wildcard_constraints:
    policy=folder_pattern(POLICIES),
    set="|".join(STUDY.evaluation.sets),
    look=r"\d+",


def fingerprint(wildcards):
    """Identifies the weights of a policy."""
    return POLICIES[wildcards.policy].fingerprint


def evaluation_fingerprint(wildcards):
    """Identifies the prompts that a policy answers and how it samples."""
    return evaluation_id(STUDY, POLICIES[wildcards.policy].recipe)


def manifest(policy):
    """The manifest of a trained policy, or of the data for a model before any training."""
    return LAYOUT.train_manifest(policy.folder, policy.stage) if policy.is_trained else LAYOUT.data_manifest


def warm_start(wildcards):
    """The input that a run starts from: its warm start, or only the data without one."""
    return manifest(POLICIES[wildcards.policy].start)


def weights(wildcards):
    """The input that a policy answers with: its training, or only the data without one."""
    return manifest(POLICIES[wildcards.policy])
