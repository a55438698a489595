# Train one arm with one seed; a killed job resumes, a forced one (-R) starts from step 0.
rule rl_train:
    input:
        data=rules.prepare_data.output.manifest,
        warm_start=warm_start,
    output:
        manifest=LAYOUT.train_manifest("{policy}", "rl"),
    log:
        LAYOUT.root / "logs/{policy}/train.log",
    benchmark:
        LAYOUT.root / "benchmarks/{policy}/train.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.threads * (STUDY.processes_per_node + STUDY.judging_processes)
    resources:
        **REQUESTS["rl_train"],
    params:
        fingerprint=fingerprint,
        code=CODE["rl_train"],
    message:
        "Train {wildcards.policy}"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages rl_train "$@" --policy {wildcards.policy:q} --fingerprint {params.fingerprint:q} >> {log:q} 2>&1'
