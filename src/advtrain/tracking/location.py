"""Where the runs are shown, and where this copy of the repository notes what it delivered."""

import hashlib
import os
import re
from pathlib import Path

DEFAULT_URI = "sqlite:///mlflow.db"
SERVERS = ("http://", "https://")
DEFAULT_UI = "http://127.0.0.1:5000"


def home(root: Path) -> Path:
    """Return the repository that people browse.

    Args:
        root: the repository's top folder, or a temporary copy of it in which DVC runs an
            experiment (DVC then names the repository itself in `DVC_ROOT`).
    """
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def tracking_uri(root: Path) -> str:
    """Return where MLflow keeps the runs: `MLFLOW_TRACKING_URI`, else `mlflow.db` at the top."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or DEFAULT_URI
    path = database(uri)
    if path is None:
        return uri
    _, _, options = uri.partition("?")
    return f"sqlite:///{home(root) / path}" + (f"?{options}" if options else "")


def web_address(uri: str) -> str:
    """Return where people look at the runs: `MLFLOW_UI`, else the server, else `mlflow ui` here.

    Args:
        uri: where MLflow keeps the runs.
    """
    served = without_login(uri) if uri.startswith(SERVERS) else DEFAULT_UI
    return (os.environ.get("MLFLOW_UI", "").strip() or served).rstrip("/")


def start_command(root: Path, uri: str) -> str:
    """Return the command that makes MLflow answer, to be given at the top of the repository.

    Args:
        root: the repository's top folder.
        uri: where MLflow keeps the runs; what is a server needs no command.
    """
    if uri.startswith(SERVERS):
        return ""
    if database(uri) == home(root) / "mlflow.db":
        return "mlflow ui"
    return 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'


def database(uri: str) -> Path | None:
    """Return the SQLite file that a tracking URI names; None for a server or another database."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None


def ledger_path(root: Path, uri: str) -> Path:
    """Return the file that notes what this copy of the repository has delivered there."""
    return root / ".pipeline" / "tracking" / f"{_short(uri)}.json"


def lock_path(root: Path, uri: str) -> Path:
    """Return the file whose lock lets one process deliver at a time.

    It lies beside a SQLite file, so that two repositories that share one also share the lock.
    """
    path = database(uri)
    if path is not None:
        return path.with_name(f"{path.name}.lock")
    return home(root) / ".pipeline" / "tracking" / f"{_short(uri)}.lock"


def without_password(text: str) -> str:
    """Take the user and password out of the URLs of a text, to show it."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def without_login(address: str) -> str:
    """Take the user and password out of an address, to open it."""
    return re.sub(r"://[^/@\s]*@", "://", address)


def _short(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:16]
