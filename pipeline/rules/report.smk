rule report:
    input:
        spec=spec_of(G, "report"),
        upstream=inputs_of(G, "report"),
    output:
        marker("report", "all"),
    log:
        "logs/report/all.log",
    conda:
        "../environment.yaml"
    shell:
        RUN
