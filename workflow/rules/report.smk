# Write the report; its verdicts and the page's path go to the terminal too.
rule ablation_report:
    input:
        training=[LAYOUT.train_manifest(folder) for folder, policy in POLICIES.items() if policy.stage != "model"],
        scores=[LAYOUT.scores(folder, name) for folder in POLICIES for name in STUDY.evaluation.sets],
    output:
        page=LAYOUT.report / "index.html",
        numbers=LAYOUT.report / "report.json",
    log:
        LAYOUT.root / "logs/ablation_report.log",
    benchmark:
        LAYOUT.root / "benchmarks/ablation_report.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    params:
        shown=SHOWN,
        code=CODE["ablation_report"],
    message:
        "Write the report"
    shell:
        "python -m rlassay.cli.stages ablation_report $STUDY 2>> {log} | tee -a {log}"


# Write the report from what is finished so far.
rule partial_report:
    log:
        LAYOUT.root / "logs/partial_report.log",
    conda:
        "../../environment.yml"
    threads: 1
    message:
        "Write the report of what is finished"
    shell:
        "python -m rlassay.cli.stages ablation_report $STUDY --partial 2>> {log} | tee -a {log}"
