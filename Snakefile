"""The workflow: params.yaml -> data -> cells -> rows -> tables, figures, report.

`snakemake --cores all` makes everything; what has to be made is decided by content keys
(src/advtrain/graph), which the markers under .pipeline/fresh stand for. The rules only declare.
"""

import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from advtrain.graph.sync import sync
from pipeline.follow import Follower, write_partial_report
from pipeline.wiring import (
    RUN,
    gpus_of,
    hold_workspace,
    inputs_of,
    load_graph,
    marker,
    spec_of,
)


workdir: ROOT


G = load_graph(ROOT, config)  # params.yaml, with what --config gave laid over it
GPUS = gpus_of(G)
if (
    GPUS and "gpu" not in workflow.global_resources
):  # `--resources gpu=N` says otherwise
    workflow.register_resource("gpu", len(GPUS))

if workflow.is_main_process:
    held = hold_workspace(ROOT)
    sync(G)
    follower = Follower(G)


localrules:
    all,
    prepare_all,
    train_all,
    attack_all,
    certify_all,
    probe_all,


rule all:
    input:
        G.report.marker,


rule prepare_all:
    input:
        [node.marker for node in G.stage("prepare")],


rule train_all:
    input:
        [node.marker for node in G.stage("train")],


rule attack_all:
    input:
        [node.marker for node in G.stage("attack")],


rule certify_all:
    input:
        [node.marker for node in G.stage("certify")],


rule probe_all:
    input:
        [node.marker for node in G.stage("probe")],


include: "pipeline/rules/prepare.smk"
include: "pipeline/rules/train.smk"
include: "pipeline/rules/attack.smk"
include: "pipeline/rules/certify.smk"
include: "pipeline/rules/probe.smk"
include: "pipeline/rules/tables.smk"
include: "pipeline/rules/report.smk"


onstart:
    follower.start(workflow.dag_settings)


onsuccess:
    follower.stop()


onerror:
    follower.stop()
    write_partial_report(G)
