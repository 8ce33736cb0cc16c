"""The follower: a process beside the workflow that shows how far it is and feeds the tracker.

Jobs only write files; they never import a tracking library and never wait for a server. One
follower per run reads those files: it draws a line on the terminal (nothing if there is none) and
brings the tracker up to date. It ends when the workflow does, however that ends.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from advtrain.graph.costs import Rates, estimate
from advtrain.graph.nodes import Graph
from advtrain.graph.records import write_json
from advtrain.graph.states import states, todo
from advtrain.graph.store import Store
from advtrain.tracking.live import PLAN, progress_line
from pipeline import warm

SECONDS_BETWEEN_LINES = 1.0
SECONDS_BETWEEN_DELIVERIES = 3.0
SECONDS_TO_DELIVER_THE_REST = 300.0


class Follower:
    """Starts the follower process when jobs start and lets it finish when they end."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.process: subprocess.Popen[bytes] | None = None
        self.warm: subprocess.Popen[bytes] | None = None

    def start(self, settings: Any) -> None:
        """Write down what is to be done, and start the process.

        Args:
            settings: Snakemake's DAG settings; a forced run computes what the store holds.
        """
        forced = settings.forceall or settings.forcerun or settings.forcetargets
        os.environ["ADVTRAIN_FORCE"] = "1" if forced else "0"
        waiting = todo(self.graph, states(self.graph))
        rates = Rates.measured(self.graph.root, Store.of(self.graph.root))
        planned = {
            node.id: {"marker": node.marker, "seconds": estimate(node, rates)}
            for node in self.graph
            if node.id in waiting
        }
        write_json(self.graph.root / PLAN, {"todo": planned, "started": time.time()})
        if forced or any(id.startswith(warm.HEAVY) for id in planned):
            self.warm = warm.start(self.graph.root)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.follow"],
            cwd=self.graph.root,
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(self.graph.root / "src")},
        )

    def stop(self) -> None:
        """Let it deliver what is left, and wait until it has."""
        if self.process is None:
            return
        for process in (self.warm, self.process):
            if process is not None and process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_DELIVER_THE_REST)
        except subprocess.TimeoutExpired:
            self.process.kill()
            print("MLflow: not done in time; `advtrain mlflow-sync` delivers the rest")


def main() -> int:
    """Follow the run that wrote the plan until the standard input closes."""
    root = Path.cwd()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the workflow, not before
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    with contextlib.suppress(OSError):
        os.nice(5)  # the cells come first
    delivery = threading.Thread(target=_deliver, args=(root, ended))
    if os.environ.get("ADVTRAIN_TRACKING") != "off":
        delivery.start()
    if sys.stderr.isatty():
        _show(root, ended)
    ended.wait()
    if delivery.ident is not None:
        delivery.join()
    return 0


def _wait_for_end(ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1 << 10):  # unbuffered: a thread may not die holding a buffer's lock
            pass
    ended.set()


def _deliver(root: Path, ended: threading.Event) -> None:
    """Bring the tracker up to date, now and then, and once more at the end."""
    from advtrain.tracking.reconcile import reconcile_mlflow

    said = ""
    while True:
        last = ended.wait(SECONDS_BETWEEN_DELIVERIES)
        try:
            done = reconcile_mlflow(root)
            cause = done.cause if done.pending else ""
        except Exception as error:  # whatever the tracker does, the run goes on
            cause = f"{type(error).__name__}: {error}"
        if cause and cause != said:
            print(
                f"MLflow: {cause}; the run goes on, and the next run or "
                "`advtrain mlflow-sync` delivers what is missing",
                file=sys.stderr,
            )
            said = cause
        if last:
            return


def _show(root: Path, ended: threading.Event) -> None:
    """Draw one line, again and again: what is done, what runs, how long it takes."""
    started = time.time()
    while not ended.wait(SECONDS_BETWEEN_LINES):
        line = progress_line(root, time.time() - started)
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def write_partial_report(graph: Graph) -> None:
    """After failures, render what there is: the page names what failed and why."""
    progress = (graph.root / node.progress for node in graph)
    if any('"state": "interrupted"' in path.read_text() for path in progress if path.is_file()):
        print("interrupted: the earlier report stays as it is", file=sys.stderr)
        return
    config = json.dumps(graph.params.source, default=str)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.partial", *graph.params.run],
        cwd=graph.root,
        check=False,
        env={**os.environ, "ADVTRAIN_CONFIG": config},
    )
    if done.returncode:
        print("the partial report could not be written; see above", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
