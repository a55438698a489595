# Train one arm with one seed; a killed job resumes, a forced one (-R) starts from step 0.
rule rl_train:
    input:
        data=rules.prepare_data.output.sentinel,
        warm_start=warm_start,
    output:
        sentinel=LAYOUT.root / "{policy}/train.json",
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
        code=CODE["rl_train"],
    message:
        "Train {wildcards.policy}"
    shell:
        "python -m rlassay.cli.stages rl_train $STUDY --policy {wildcards.policy} --fingerprint {params.fingerprint} >> {log} 2>&1"
