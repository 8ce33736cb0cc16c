rule attack:
    input:
        spec=spec_of(G, "attack"),
        upstream=inputs_of(G, "attack"),
    output:
        marker("attack", "{name,[^/]+/[^/]+/[^/]+}"),
    log:
        "logs/attack/{name}.log",
    conda:
        "../environment.yaml"
    resources:
        gpu=min(1, len(GPUS)),
    shell:
        RUN
