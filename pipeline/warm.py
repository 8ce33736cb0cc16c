"""A warm process that jobs are forked from, so that each does not import torch again (seconds).

The workflow starts one beside itself; it imports the third-party packages that jobs need, none of
this project's code, and forks a child for each job that asks over a socket. A job that finds no
warm process (run by hand, on another host) runs in its own process, with the same result.
"""

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from advtrain.graph.nodes import CELL_STAGES

HEAVY = ("prepare", *CELL_STAGES)
"""The stages that import torch."""

SOCKET = ".pipeline/warm.sock"
# pyarrow starts a thread, knows how to be forked, and imports pandas where that is there. The last
# is what torch imports when its deterministic mode is first switched on (2 s).
PACKAGES = (
    *("numpy", "pandas", "pyarrow.parquet", "pyarrow.compute", "torch", "safetensors.torch"),
    "torch._inductor.config",
)


def start(root: Path) -> subprocess.Popen[bytes]:
    """Start the warm process; it ends when the returned process's standard input closes."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.serve"],
        cwd=root,
        stdin=subprocess.PIPE,
        start_new_session=True,  # an interrupt is for the jobs, whose end it then sees
    )


def ask(argv: list[str]) -> int | None:
    """Let the warm process run a job for this one, with its environment and its output files.

    Returns:
        The job's exit code, or None if there is no warm process here.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(SOCKET)
            request = json.dumps({"argv": argv, "environment": dict(os.environ)}).encode()
            files = array.array("i", [1, 2])
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]
            connection.sendmsg([len(request).to_bytes(8, "big")], control)
            connection.sendall(request)
        except OSError:
            return None
        try:
            answer = connection.recv(1)
        except ConnectionError:
            answer = b""
    if not answer:
        print("the job's process died: killed, or out of memory?", file=sys.stderr)
        return 1
    return answer[0]


def serve(job: Callable[[list[str]], int]) -> None:
    """Listen, warm up, and fork a child for each request until the standard input closes."""
    path = Path(SOCKET)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(SOCKET)
        os.chmod(SOCKET, 0o600)
        listener.listen(1024)
        for package in PACKAGES:
            with contextlib.suppress(ModuleNotFoundError):  # pandas is MLflow's, not ours
                __import__(package)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children need no waiting for
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready and not os.read(0, 1):
                break
            if listener in ready:
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    os._exit(_child(connection, job))
                connection.close()
    path.unlink(missing_ok=True)


def _child(connection: socket.socket, job: Callable[[list[str]], int]) -> int:
    """Run one job as if it had been started by the process that asks."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        length, files = _receive_files(connection)
        request = json.loads(_receive(connection, length))
        for target, file in zip((1, 2), files, strict=True):
            os.dup2(file, target)
        os.environ.clear()
        os.environ.update(request["environment"])
        threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
        code = job(request["argv"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        connection.sendall(bytes([code & 255]))
    return code


def _receive_files(connection: socket.socket) -> tuple[int, list[int]]:
    files = array.array("i")
    size = socket.CMSG_LEN(2 * files.itemsize)
    message, control, _, _ = connection.recvmsg(8, size)
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.frombytes(data[: len(data) - len(data) % files.itemsize])
    return int.from_bytes(message, "big"), list(files)


def _receive(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise ConnectionError("the process that asked is gone")
        parts += part
    return bytes(parts)


def _die_with(connection: socket.socket) -> None:
    """End the job, at once, when the process that asked for it is gone."""
    with contextlib.suppress(OSError):
        if connection.recv(1) == b"":
            os.kill(os.getpid(), signal.SIGKILL)
