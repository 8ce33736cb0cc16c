"""The device that a step computes on: one choice for training, attacks and certificates."""

import torch


def choose_device(wanted: str) -> torch.device:
    """Return the device: `auto` is the GPU where there is one.

    Raises:
        ValueError: if `cuda` is asked for and there is none.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ValueError(
            "params.yaml: device: cuda, but torch finds no CUDA device; "
            "use auto or cpu, or check the driver with nvidia-smi"
        )
    return torch.device("cuda" if found and wanted != "cpu" else "cpu")
