"""The warm process: jobs forked from it are jobs like any other."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.pipeline.workspace import Workspace, clean_environment, only

pytestmark = pytest.mark.workflow

JOB = """
import os, sys, time
from pipeline import warm
def job(argv):
    print("out", argv, os.environ["MARK"], flush=True)
    print("err", file=sys.stderr, flush=True)
    open(argv[0], "w").write(str(os.getpid()))
    time.sleep(float(argv[1]))
    if argv[2] == "die":
        os.abort()
    return int(argv[2])
warm.PACKAGES = ()
if sys.argv[1] == "serve":
    warm.serve(job)
else:
    found = warm.ask(sys.argv[2:])
    sys.exit(77 if found is None else found)
"""


@pytest.fixture
def served(fresh: Workspace) -> Workspace:
    (fresh.root / "job.py").write_text(JOB)
    return fresh


def start(workspace: Workspace) -> "subprocess.Popen[bytes]":
    server = subprocess.Popen(
        ["python", "job.py", "serve"],
        cwd=workspace.root,
        stdin=subprocess.PIPE,
        env=clean_environment(),
    )
    while not (workspace.root / ".pipeline/warm.sock").exists():
        time.sleep(0.02)
    return server


def client(workspace: Workspace, *argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["python", "job.py", "ask", *argv],
        cwd=workspace.root,
        env=clean_environment({"MARK": "here"}),
        capture_output=True,
        text=True,
        check=False,
    )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"


def test_a_forked_job(served: Workspace) -> None:
    assert client(served, "pid", "0", "0").returncode == 77  # nobody serves
    server = start(served)
    done = client(served, "pid", "0", "5")
    assert done.returncode == 5
    assert done.stdout == "out ['pid', '0', '5'] here\n"
    assert done.stderr == "err\n"
    died = client(served, "pid", "0", "die")
    assert died.returncode == 1
    assert "the job's process died" in died.stderr

    # The job dies with the process that asked for it, and the server lives on.
    asking = subprocess.Popen(
        ["python", "job.py", "ask", "long", "60", "0"],
        cwd=served.root,
        env=clean_environment({"MARK": ""}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (served.root / "long").exists() or not (served.root / "long").read_text():
        time.sleep(0.02)
    pid = int((served.root / "long").read_text())
    assert is_alive(pid)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    for _ in range(200):
        if not is_alive(pid):
            break
        time.sleep(0.02)
    assert not is_alive(pid)
    assert client(served, "pid", "0", "3").returncode == 3

    assert server.stdin is not None
    server.stdin.close()
    assert server.wait(10) == 0
    assert not (served.root / ".pipeline/warm.sock").exists()


def test_the_code_that_runs_is_the_copys_own(workspace: Workspace) -> None:
    workspace.edit(only(("trades",)))
    trades = workspace.root / "src/advtrain/methods/trades.py"
    trades.write_text(trades.read_text().replace("def perturb(", "def perturb_(", 1))
    failed = workspace.snakemake(fails=True)
    assert "perturb" in failed.stderr  # the abstract method is missing in this copy alone
    shown = workspace.run("advtrain", "status", fails=True).stdout
    assert "trades.py changed" in shown
