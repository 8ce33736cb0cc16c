"""A weight step in parts, for minibatches that do not fit into memory at once."""

import logging
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from advtrain.methods.method import Batch, Cost, Method, Passes, Terms
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from advtrain.training.distributed import draws

logger = logging.getLogger(__name__)

Step = Callable[[Callable[[], Terms]], Terms]
"""Takes the loss of a minibatch as a closure, and one step of the weights."""


class MicroBatches:
    """Weight steps whose forward and backward passes meet a part of the minibatch each.

    The loss of the minibatch is the mean of its parts' losses, weighted by their rows, and so is
    its gradient (up to rounding). Each part is computed once without keeping its activations, and
    again when its gradient is due: one more forward pass, and the memory of one part.

    Attributes:
        size: images per pass; 0 for the whole minibatch.
    """

    def __init__(
        self, model: nn.Module, method: Method, size: int, *, halve: bool, image: Tensor
    ) -> None:
        """Check that parts make the same step as the whole.

        Args:
            model: to be trained.
            method: that trains it.
            size: images per pass; 0 for the whole minibatch. A part has one example at least,
                with all of its views.
            halve: go on with half as many where the device has no memory for them.
            image: (1, C, H, W), one to try the network on.

        Raises:
            ValueError: if a row's part in the step depends on the other rows.
        """
        self.method, self.size, self.halve = method, size, halve
        self._cost: Cost | None = None
        if size or halve:
            asked = f"micro_batch {size}" if size else "halve_on_out_of_memory"
            if any(isinstance(module, _BatchNorm) for module in model.modules()):
                raise ValueError(
                    f"{asked}: the network has BatchNorm, which normalises by the whole minibatch; "
                    "lower batch_size (and the learning rate with it), or use a network without"
                )
            if not method.rowwise:
                raise ValueError(
                    f"{asked}: a step of {type(method).__name__} is not the mean of its rows' "
                    "steps; lower batch_size (and the learning rate with it) instead"
                )
            if draws(model, image):
                raise ValueError(
                    f"{asked}: the network draws random numbers (dropout), and would draw others "
                    "for parts; lower batch_size (and the learning rate with it) instead"
                )

    def cost(self) -> Cost:
        """Return what the last step cost per row, with the passes that parts make twice."""
        return self._cost or self.method.cost()

    def step(
        self, take_step: Step, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise
    ) -> tuple[Tensor, Terms]:
        """Craft, evaluate the loss and step.

        Args:
            take_step: see `updates`.
            model: in train mode.
            batch: the minibatch.
            threat: the budget.
            noise: of the rows at this step.

        Returns:
            (N, C, H, W) the images trained on, with `.grad` where the method asks for it, and the
            loss.

        Raises:
            torch.OutOfMemoryError: if the device has no memory for the part, and it may not be
                halved or is one image.
        """
        while True:
            try:
                return self._step(take_step, model, batch, threat, noise)
            except torch.OutOfMemoryError:
                tried = min(self.size or len(batch.y), len(batch.y))
                if not self.halve or tried <= self.method.views:
                    raise
                self.size = -(-tried // 2)
                logger.warning("no memory for %d images at once; now %d", tried, self.size)
            # Outside of the handler, whose traceback holds what did not fit.
            if batch.x.is_cuda:
                torch.cuda.empty_cache()

    def _step(
        self, take_step: Step, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise
    ) -> tuple[Tensor, Terms]:
        method, self._cost = self.method, None
        if not 0 < self.size < len(batch.y):
            x_adv = method.perturb(model, batch, threat, noise)
            if method.input_gradient:
                x_adv.requires_grad_()
            return x_adv, take_step(partial(method.loss, model, batch, x_adv, threat, noise))
        x_adv = torch.empty_like(batch.x)
        spent = [0.0] * 4
        for rows in self._parts(batch):
            x_adv[rows] = method.perturb(model, _rows_of(batch, rows), threat, noise.take(rows))
            part, share = method.cost(), len(rows) / len(batch.y)
            passes = (*part.crafting, 2 * part.loss.forward, part.loss.backward)
            spent = [one + share * more for one, more in zip(spent, passes, strict=True)]
        self._cost = Cost(Passes(*spent[:2]), Passes(*spent[2:]))
        return x_adv, take_step(lambda: self._loss(model, batch, x_adv, threat, noise))

    def _loss(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, threat: ThreatModel, noise: Noise
    ) -> Terms:
        total, logits = x_adv.new_zeros(()), []
        parts: dict[str, Tensor] = {}
        for rows in self._parts(batch):
            evaluated = partial(
                self.method.loss,
                model,
                _rows_of(batch, rows),
                x_adv[rows],
                threat,
                noise.take(rows),
            )
            found: Terms = checkpoint(evaluated, use_reentrant=False)
            share = len(rows) / len(batch.y)
            total = total + share * found.total
            logits.append((rows, found.logits))
            for name, part in found.parts.items():
                parts[name] = parts.get(name, 0) + share * part.detach()
        order = torch.cat([rows for rows, _ in logits]).argsort()
        return Terms(total, torch.cat([own for _, own in logits])[order], parts)

    def _parts(self, batch: Batch) -> Iterator[Tensor]:
        """The rows of each part: some examples with all of their views."""
        views = self.method.views
        count = len(batch.y) // views
        every = torch.arange(count, device=batch.y.device)
        for some in torch.split(every, max(self.size // views, 1)):
            yield torch.cat([some + view * count for view in range(views)])


def _rows_of(batch: Batch, rows: Tensor) -> Batch:
    smoothed = None if batch.smoothed is None else batch.smoothed[rows]
    return Batch(batch.x[rows], batch.y[rows], batch.example[rows], smoothed, batch.progress)
