def decisions(wildcards):
    """The decisions of the looks that a job waits for: those before its own look, or for the report all."""
    taken, looks = [], () if STUDY.sequential is None else STUDY.sequential.looks
    for look in range(1, int(wildcards.get("look", len(looks) + 1))):
        taken.append(checkpoints.decide.get(look=look).output.decision)
        if not undecided_arms(LAYOUT, look):
            break
    return taken


def results_of(asked, with_curves):
    """The files of policies that a comparison reads."""
    files = [manifest(policy) for policy in asked.values() if policy.is_trained]
    files += [LAYOUT.scores(folder, name) for folder in asked for name in STUDY.evaluation.sets]
    runs = [folder for folder, policy in asked.items() if with_curves and policy.stage == "rl"]
    return files + [LAYOUT.curve(run, STUDY.curve_set) for run in runs]


def reported(wildcards):
    """The results of every policy that the study needs; sequential seeds know them after the last look."""
    decisions(wildcards)
    return results_of(asked_policies(STUDY, LAYOUT), STUDY.curve_set is not None)


def looked_at(wildcards):
    """The results of every policy that a look needs."""
    decisions(wildcards)
    return results_of(asked_policies(STUDY, LAYOUT, before=int(wildcards.look)), STUDY.primary.over is not None)


# With sequential seeds: compare the arms after a round and write which get more seeds.
checkpoint decide:
    input:
        decisions=decisions,
        results=looked_at,
    output:
        decision=LAYOUT.decision("{look}"),
    log:
        LAYOUT.root / "logs/decide-{look}.log",
    benchmark:
        LAYOUT.root / "benchmarks/decide-{look}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **REQUESTS["decide"],
    params:
        fingerprint=decision_id(STUDY),
        code=CODE["decide"],
    message:
        "Look {wildcards.look}: which arms need more seeds?"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages decide "$@" --look {wildcards.look} 2>> {log:q} | tee -a {log:q}'
