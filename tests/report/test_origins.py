"""Provenance, cost, interruptions and commands."""

import hashlib
import json

from rlassay.report.gather import Results
from rlassay.report.origins import build_commands, build_cost, build_policies, build_resumes


def test_every_trained_policy_has_provenance(results: Results):
    facts = build_policies(results)
    assert [one.row for one in facts] == ["sft"] + [arm for arm in results.study.arms for _ in range(3)]
    assert facts[0].seed is None
    assert facts[1].sha256 == hashlib.sha256(b"runs/base/seed1").hexdigest()
    assert (facts[1].steps, facts[1].max_steps) == (10, 10)


def test_several_weight_files_have_one_digest(results: Results):
    files = {"b.safetensors": "2", "a.safetensors": "1"}
    proofs = results.proofs | {"runs/base/seed1": results.proofs["runs/base/seed1"] | {"sha256": files}}
    facts = build_policies(Results(**(vars(results) | {"proofs": proofs})))
    text = json.dumps({"a.safetensors": "1", "b.safetensors": "2"})
    assert facts[1].sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_costs_are_those_of_the_sentinels_and_the_timed_steps(results: Results):
    cost = {one.policy: one for one in build_cost(results)}
    run = cost["runs/dr_grpo/seed2"]
    assert (run.seconds, run.generated_tokens, run.peak_memory_mb) == (12.5, 10_000, 512.0)
    assert set(run.seconds_per_step) == {"step", "generation", "reward"}
    assert run.seconds_per_step["generation"] == 0.5
    shared = next(one for one in cost.values() if one.policy.startswith("sft/"))
    assert shared.seconds_per_step == {}


def test_interruptions(results: Results):
    resumed = results.proofs["runs/base/seed1"] | {"resumes": [{"step": 4, "time": 1.0}, {"step": 8, "time": 2.0}]}
    proofs = results.proofs | {"runs/base/seed1": resumed}
    found = {one.policy: one.steps for one in build_resumes(Results(**(vars(results) | {"proofs": proofs})))}
    assert found["runs/base/seed1"] == (4, 8)
    assert found["runs/base/seed2"] == ()


def test_every_run_has_a_command_that_repeats_it(results: Results):
    commands = build_commands(results)
    assert len(commands) == 1 + 12
    assert commands[1].target == "base, seed 1"
    assert f"-R {results.layout.root}/runs/base/seed1/train.json" in commands[1].command
