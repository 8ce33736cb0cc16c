rule certify:
    input:
        spec=spec_of(G, "certify"),
        upstream=inputs_of(G, "certify"),
    output:
        marker("certify", "{name,[^/]+/[^/]+/[^/]+}"),
    log:
        "logs/certify/{name}.log",
    conda:
        "../environment.yaml"
    resources:
        gpu=min(1, len(GPUS)),
    shell:
        RUN
