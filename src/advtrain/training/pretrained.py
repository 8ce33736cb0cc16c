"""Weights that torchvision publishes, as the start of a training."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn


def start_from(model: nn.Module, name: str) -> None:
    """Load published weights into a model, in place; a head of other classes stays as it is.

    The file lies where torchvision puts it (`$TORCH_HOME/hub/checkpoints`) and is downloaded the
    first time. Its bytes are compared with the part of their SHA-256 that its name holds.

    Args:
        model: one with torchvision's network in it, whatever layers stand before it.
        name: `<model>/<weights>` as torchvision calls them, such as `resnet50/IMAGENET1K_V2`.

    Raises:
        ValueError: if torchvision publishes no such weights, the file is damaged, or the model's
            network is another one.
        OSError: if the file is not there and cannot be downloaded.
    """
    published = _published(name)
    parts = (m for m in model.modules() if _names(m.state_dict()) == _names(published))
    network = next(parts, None)
    if network is None:
        raise ValueError(
            f"torchvision:{name}: no part of the model has the weights {next(iter(published))} ... "
            f"{list(published)[-1]} that the file holds; use a model that torchvision builds "
            "(module resnet, and the same depth)"
        )
    own = network.state_dict()
    other = {part: weight for part, weight in published.items() if weight.shape != own[part].shape}
    heads = [part for part, module in network.named_modules() if isinstance(module, nn.Linear)]
    for part, weight in other.items():
        if part.rpartition(".")[0] not in heads[-1:]:
            raise ValueError(
                f"torchvision:{name}: {part} has the shape {tuple(weight.shape)}, the model's "
                f"{tuple(own[part].shape)}; only the head may differ"
            )
    kept = {part: weight for part, weight in published.items() if part not in other}
    network.load_state_dict(kept, strict=False)


def _names(weights: dict[str, Tensor]) -> set[str]:
    """Return the names, without the counters that older files lack."""
    return {name for name in weights if not name.endswith("num_batches_tracked")}


def _published(name: str) -> dict[str, Tensor]:
    from torchvision import models

    architecture, _, chosen = name.partition("/")
    if architecture not in models.list_models():
        raise ValueError(f"torchvision:{name}: torchvision has no model {architecture!r}")
    # Without DEFAULT, which is another file in another version of torchvision.
    known = {one.name: one for one in models.get_model_weights(architecture)}
    if chosen not in known:
        raise ValueError(
            f"torchvision:{name}: torchvision publishes {', '.join(known)} for {architecture}, "
            f"not {chosen!r}"
        )
    url = known[chosen].url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise OSError(
                f"torchvision:{name}: {url} cannot be downloaded ({error}); "
                f"fetch it elsewhere and put it at {path}"
            ) from error
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected and not digest.startswith(expected[1]):
        raise ValueError(
            f"{path}: damaged, its sha256 begins with {digest[:8]}, its name says {expected[1]}; "
            "delete it and run again"
        )
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
