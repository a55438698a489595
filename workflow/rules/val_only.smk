# Train nothing: evaluate the models before training and the references, and report on what is finished.
rule val_only:
    input:
        [
            LAYOUT.scores(each, name)
            for each in POLICIES
            if not POLICIES[each].is_trained
            for name in STUDY.evaluation.sets
        ],
    log:
        LAYOUT.root / "logs/val_only.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **REQUESTS["ablation_report"],
    message:
        "Write the report on models that are not trained"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages ablation_report "$@" --partial 2>> {log:q} | tee -a {log:q}'
