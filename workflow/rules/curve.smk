# Evaluate the weights that a run kept in the middle of its training, then remove them.
rule held_out_curve:
    input:
        data=rules.prepare_data.output.manifest,
        weights=rules.rl_train.output.manifest,
    output:
        scores=LAYOUT.curve("{policy}", "{set}"),
    log:
        LAYOUT.root / "logs/{policy}/curve-{set}.log",
    benchmark:
        LAYOUT.root / "benchmarks/{policy}/curve-{set}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.threads * STUDY.placed("held_out_curve").processes_per_node
    resources:
        **REQUESTS["held_out_curve"],
    params:
        every=STUDY.evaluation.every,
        fingerprint=evaluation_fingerprint,
        scorers=score_id(STUDY),
        code=CODE["held_out_curve"],
    message:
        "Held-out curve of {wildcards.policy}"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages held_out_curve "$@" --policy {wildcards.policy:q} '
        "--fingerprint {params.fingerprint:q} >> {log:q} 2>&1"
