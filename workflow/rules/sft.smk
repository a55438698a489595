# Train a warm start on the demonstrations; arms with the same model and sft sections share it.
rule sft_train:
    input:
        data=rules.prepare_data.output.manifest,
    output:
        manifest=LAYOUT.train_manifest("{policy}", "sft"),
    log:
        LAYOUT.root / "logs/{policy}/train.log",
    benchmark:
        LAYOUT.root / "benchmarks/{policy}/train.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.threads * STUDY.processes_per_node
    resources:
        **REQUESTS["sft_train"],
    params:
        fingerprint=fingerprint,
        code=CODE["sft_train"],
    message:
        "Warm start {wildcards.policy}"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages sft_train "$@" --policy {wildcards.policy:q} --fingerprint {params.fingerprint:q} >> {log:q} 2>&1'
