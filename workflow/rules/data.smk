# Write the prompts of every split and their images.
rule prepare_data:
    output:
        manifest=LAYOUT.data_manifest,
    log:
        LAYOUT.root / "logs/prepare_data.log",
    benchmark:
        LAYOUT.root / "benchmarks/prepare_data.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **REQUESTS["prepare_data"],
    params:
        fingerprint=data_id(STUDY),
        code=CODE["prepare_data"],
    message:
        "Prepare the data"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages prepare_data "$@" --fingerprint {params.fingerprint:q} >> {log:q} 2>&1'
