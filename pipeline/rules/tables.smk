rule collect:
    input:
        spec=spec_of(G, "collect"),
        upstream=inputs_of(G, "collect"),
    output:
        marker("collect"),
    log:
        "logs/collect/{name}.log",
    conda:
        "../environment.yaml"
    shell:
        RUN


rule tables:
    input:
        spec=spec_of(G, "tables"),
        upstream=inputs_of(G, "tables"),
    output:
        marker("tables"),
    log:
        "logs/tables/{name}.log",
    conda:
        "../environment.yaml"
    shell:
        RUN


rule figures:
    input:
        spec=spec_of(G, "figures"),
        upstream=inputs_of(G, "figures"),
    output:
        marker("figures"),
    log:
        "logs/figures/{name}.log",
    conda:
        "../environment.yaml"
    shell:
        RUN
