rule train:
    input:
        spec=spec_of(G, "train"),
        upstream=inputs_of(G, "train"),
    output:
        marker("train", "{name,[^/]+/[^/]+}"),
    log:
        "logs/train/{name}.log",
    conda:
        "../environment.yaml"
    resources:
        gpu=min(1, len(GPUS)),
    shell:
        RUN
