# Snakemake compares no params of a report whose looks are not taken yet, so each declaration of rounds has a file.
ROUNDS_REPORTED = [touch(LAYOUT.rounds_reported(decision_id(STUDY)))] if STUDY.sequential else []


# Write the report; print its verdicts and the page's path.
rule ablation_report:
    input:
        decisions=decisions,
        results=reported,
    output:
        page=report(str(LAYOUT.report / PAGE), category="Study", labels={"page": STUDY.title}),
        numbers=LAYOUT.report / REPORT_NUMBERS,
        rounds=ROUNDS_REPORTED,
    log:
        LAYOUT.root / "logs/ablation_report.log",
    benchmark:
        LAYOUT.root / "benchmarks/ablation_report.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **REQUESTS["ablation_report"],
    params:
        shown=SHOWN,
        code=CODE["ablation_report"],
    message:
        "Write the report"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages ablation_report "$@" 2>> {log:q} | tee -a {log:q}'


# Write the report on the policies that are finished.
rule partial_report:
    log:
        LAYOUT.root / "logs/partial_report.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **REQUESTS["ablation_report"],
    message:
        "Write the report on finished policies"
    shell:
        'keep_log {log:q}; python -m rlassay.cli.stages ablation_report "$@" --partial 2>> {log:q} | tee -a {log:q}'
