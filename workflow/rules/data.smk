# Write the prompts of every split, and the images that they name.
rule prepare_data:
    output:
        sentinel=LAYOUT.data_manifest,
    log:
        LAYOUT.root / "logs/prepare_data.log",
    benchmark:
        LAYOUT.root / "benchmarks/prepare_data.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    params:
        fingerprint=data_id(STUDY),
        code=CODE["prepare_data"],
    message:
        "Prepare the data"
    shell:
        "python -m rlassay.cli.stages prepare_data $STUDY --fingerprint {params.fingerprint} >> {log} 2>&1"
