rule probe:
    input:
        spec=spec_of(G, "probe"),
        upstream=inputs_of(G, "probe"),
    output:
        marker("probe", "{name,[^/]+/[^/]+/[^/]+}"),
    log:
        "logs/probe/{name}.log",
    conda:
        "../environment.yaml"
    resources:
        gpu=min(1, len(GPUS)),
    shell:
        RUN
