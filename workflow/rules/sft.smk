# Train a warm start on the demonstrations; arms with the same model and sft sections share it.
rule sft_train:
    input:
        data=rules.prepare_data.output.sentinel,
    output:
        sentinel=LAYOUT.root / "{policy}/sft.json",
    log:
        LAYOUT.root / "logs/{policy}/train.log",
    benchmark:
        LAYOUT.root / "benchmarks/{policy}/train.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.threads
    resources:
        gpu=STUDY.gpus,
    params:
        fingerprint=fingerprint,
        code=CODE["sft_train"],
    message:
        "Warm start {wildcards.policy}"
    shell:
        "python -m rlassay.cli.stages sft_train $STUDY --policy {wildcards.policy} --fingerprint {params.fingerprint} >> {log} 2>&1"
