# Sample a policy's completions of an evaluation set.
rule generate:
    input:
        data=rules.prepare_data.output.manifest,
        weights=weights,
    output:
        completions=LAYOUT.completions("{policy}", "{set}"),
    log:
        LAYOUT.root / "logs/{policy}/generate-{set}.log",
    benchmark:
        LAYOUT.root / "benchmarks/{policy}/generate-{set}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.threads * STUDY.placed("generate").processes_per_node
    resources:
        **REQUESTS["generate"],
    params:
        fingerprint=evaluation_fingerprint,
        code=CODE["generate"],
    message:
        "Answer {wildcards.set} with {wildcards.policy}"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages generate "$@" --policy {wildcards.policy:q} --set {wildcards.set:q} '
        "--fingerprint {params.fingerprint:q} >> {log:q} 2>&1"


# Score those completions.
rule score:
    input:
        completions=rules.generate.output.completions,
    output:
        scores=LAYOUT.scores("{policy}", "{set}"),
    log:
        LAYOUT.root / "logs/{policy}/score-{set}.log",
    benchmark:
        LAYOUT.root / "benchmarks/{policy}/score-{set}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **REQUESTS["score"],
    params:
        fingerprint=score_id(STUDY),
        code=CODE["score"],
    message:
        "Score {wildcards.set} of {wildcards.policy}"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages score "$@" --policy {wildcards.policy:q} --set {wildcards.set:q} >> {log:q} 2>&1'


include: "curve.smk"
include: "val_only.smk"
