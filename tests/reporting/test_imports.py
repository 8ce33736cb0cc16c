import subprocess
import sys

MODULES = ("tables", "figures", "html", "metrics", "paper", "plots")


def test_reporting_starts_without_torch_and_draws_only_when_asked() -> None:
    imports = "; ".join(f"import advtrain.reporting.{module}" for module in MODULES)
    script = f"{imports}; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "pyarrow" in loaded
    assert not loaded & {"torch", "matplotlib", "scipy", "mlflow"}
