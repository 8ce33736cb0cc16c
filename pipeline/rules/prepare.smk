rule prepare:
    input:
        spec=spec_of(G, "prepare"),
    output:
        marker("prepare"),
    log:
        "logs/prepare/{name}.log",
    conda:
        "../environment.yaml"
    shell:
        RUN
