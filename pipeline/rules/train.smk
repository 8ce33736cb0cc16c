from pipeline.processes import processes


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
    threads: processes()
    resources:
        gpu=min(processes(), len(GPUS)),
    shell:
        RUN
