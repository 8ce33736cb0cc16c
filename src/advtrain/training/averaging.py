"""Averages of the weights along a training, which generalise better than its last weights."""

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from advtrain.training.distributed import ALONE, Processes

Averaging = Literal["none", "ema", "swa"]


class Average:
    """A network whose weights are an average of those of the network that is trained.

    `ema`, the exponential moving average over weight steps t = 0, 1, ..., as in the official code
    of Rebuffi et al. 2021:

        average = d * average + (1 - d) * w_t,    d = min(decay, (1 + t) / (10 + t))

    d rises to `decay`, so that the initial weights do not linger. Departs from that code:
    BatchNorm's running averages are averaged likewise, where there they are those of the network
    that is trained.

    `swa`, stochastic weight averaging (Izmailov et al. 2018, algorithm 1): the equal average of the
    weights at the ends of epochs, from `start` on; before that, the weights. BatchNorm's running
    averages are then estimated anew, as the mean over a pass of images. Departs from the official
    code: dropout is off in that pass, so that the statistics are those that an evaluation meets and
    the training draws the same random numbers with and without averaging.

    `none`: the network that is trained, itself.

    Args:
        model: on its device; for `ema` and `swa` it is copied.
        kind: of the average.
        decay: of `ema`, per weight step, in [0, 1]; 0 is the weights themselves.
        start: of `swa`, share of the training, in [0, 1]; 1 is the weights after the last epoch.

    Attributes:
        model: the averaged network; `ema` and `swa` keep it frozen and in eval mode.
    """

    def __init__(self, model: nn.Module, kind: Averaging, *, decay: float, start: float) -> None:
        if kind not in ("none", "ema", "swa"):
            raise ValueError(f"averaging {kind!r} is unknown; expected none, ema or swa")
        self.model = model
        if kind != "none":
            self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._kind = kind
        self._decay = decay
        self._start = start
        # Weights that the average has taken in: of steps (ema), of epochs (swa).
        self._count = 0

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        """Take in the weights after a step, if it is the average over steps.

        Args:
            model: that is trained.
            progress: share of the weight steps that are done.
        """
        if self._kind != "ema":
            return
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        self._blend(model, 1 - decay)
        self._count += 1

    @torch.no_grad()
    def after_epoch(
        self,
        model: nn.Module,
        progress: float,
        images: Callable[[], Iterable[Tensor]],
        processes: Processes = ALONE,
    ) -> None:
        """Take in the weights after an epoch, if it is the average over epochs.

        Args:
            model: that is trained.
            progress: share of the weight steps that are done.
            images: batches (N, C, H, W) in [0, 1] to estimate BatchNorm's running averages from;
                read once, if there is anything to estimate.
            processes: that share the batches; each meets all of them.
        """
        if self._kind != "swa":
            return
        if progress < self._start:
            self._blend(model, 1.0)
            return
        self._count += 1
        self._blend(model, 1 / self._count)
        _estimate_norms(self.model, images, processes)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: tensors, and the count of the weights averaged."""
        if self._kind == "none":
            return {}
        return {"count": self._count, "weights": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned.

        Args:
            state: of an average of the same kind.
        """
        if self._kind == "none":
            return
        self._count = state["count"]
        self.model.load_state_dict(state["weights"])

    def _blend(self, model: nn.Module, share: float) -> None:
        """Move the average by a share of its way to the weights and buffers of the model."""
        # Not the state_dict, which lists a tied weight twice.
        averaged = [*self.model.parameters(), *self.model.buffers()]
        current = [*model.parameters(), *model.buffers()]
        pairs = list(zip(averaged, current, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        # One call for all: a kernel per tensor would cost a tenth of a cheap weight step.
        torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], share)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)


def _estimate_norms(
    model: nn.Module, images: Callable[[], Iterable[Tensor]], processes: Processes
) -> None:
    """Set BatchNorm's running averages to the mean, over the images, of their batches' own."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    seen = 0
    try:
        for norm in norms:
            norm.train()
        for x in images():
            seen += len(x)
            # The first batch replaces what was there, the others move it to their mean.
            for norm in norms:
                norm.momentum = len(x) / seen
            shared = len(x) >= processes.count
            with processes.normalising(model) if shared else nullcontext():
                model(processes.share(x) if shared else x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
