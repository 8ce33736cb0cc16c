"""Several processes that train one network together, with the numbers of one.

Every process holds the whole network and computes the order of the epoch by itself. Of each
minibatch it takes its share of the rows, crafts and evaluates the loss on them, and adds its part
of the gradient to those of the others; where BatchNorm looks at a minibatch, it looks at all of it.
What comes out differs from one process by the rounding of sums alone.

Why not torch's DistributedDataParallel: it adds the gradients up while a backward pass runs, of a
forward pass that went through its wrapper. Here many passes go through the network that are not to
be added up (each step of an attack), a loss can take several forward passes (TRADES) and a weight
step several gradients (adversarial weight perturbation); and methods, bounds and checkpoints look
at the network itself, by its type and the names of its weights. What the wrapper would hide, the
sums' time behind the backward pass, is paid once in a weight step and not in the steps of the
attack. Nor torch's SyncBatchNorm, which refuses the CPU and replaces the layers.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from advtrain.attacks.frozen import crafting
from advtrain.methods.method import Batch, Method, Terms
from advtrain.noise import Noise

Value = TypeVar("Value")

Step = Callable[[Callable[[], Terms]], Terms]
"""Takes the loss of a minibatch as a closure, and one step of the weights."""

BUCKET_BYTES = 32 * 2**20
"""Gradients are added up in pieces of this size: few calls, and little memory beside them."""


@dataclass(frozen=True)
class Processes:
    """The processes that train one network together, seen from one of them.

    Of a minibatch, process r of n takes the rows r, r + n, r + 2 n, ...: shares differ by one row
    at most, and a row of the minibatch is always that of the same process and of the same row of
    its share, however small the minibatch is. (Free keeps a perturbation for each.)

    With `count` 1 every method returns what it was given, and nothing is communicated. Otherwise
    all processes have to call the same methods in the same order.

    Args:
        rank: number of this process, from 0; process 0 writes the files.
        count: of the processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """Take the rows of this process.

        Args:
            rows: (N, ...), the same in every process.
        """
        return rows if self.count == 1 else rows[self.rank :: self.count]

    def sharing(self, step: Step, examples: int) -> Step:
        """Weigh the loss of a step by its rows: the processes' add up to that of the minibatch.

        The gradients of weights add up to that of the minibatch's mean, and the gradient of an
        image is the one that it has there.

        Args:
            step: takes a loss, the mean of a value of each of this process's rows.
            examples: in the minibatch.
        """
        if self.count == 1:
            return step
        weight = len(range(self.rank, examples, self.count)) / examples
        return lambda loss: step(lambda: _weighed(loss(), weight))

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, the same bits in all of them.

        Args:
            tensors: of the same shapes and types in each process; changed in place.
        """
        if self.count > 1:
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.detach().flatten() for tensor in bucket])
                dist.all_reduce(flat)
                pieces = torch.split(flat, [tensor.numel() for tensor in bucket])
                sums = [piece.view_as(one) for one, piece in zip(bucket, pieces, strict=True)]
                torch._foreach_copy_([tensor.detach() for tensor in bucket], sums)

    def added(self, value: float) -> float:
        """Return the sum of a number over the processes.

        Args:
            value: summed in float64.
        """
        if self.count == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=_device())
        self.add_up([total])
        return total.item()

    def whole(self, part: Tensor, rows: int) -> Tensor:
        """Put the shares of the processes together; the inverse of `share`.

        Args:
            part: (M, ...), this process's share.
            rows: N, of all shares together.

        Returns:
            (N, ...), the same in every process.
        """
        if self.count == 1:
            return part
        longest = -(-rows // self.count)
        filled = part.new_zeros(longest, *part.shape[1:])
        filled[: len(part)] = part.detach()
        shares = [torch.empty_like(filled) for _ in range(self.count)]
        dist.all_gather(shares, filled)
        return torch.stack(shares, dim=1).flatten(0, 1)[:rows]

    def together(
        self, batch: Batch, noise: Noise, examples: int, views: int
    ) -> tuple[Batch, Noise]:
        """Put the shares of a minibatch together.

        Args:
            batch: this process's share, view after view.
            noise: of its rows.
            examples: in the minibatch.
            views: of each example.
        """

        def whole(part: Tensor) -> Tensor:
            return torch.cat([self.whole(view, examples) for view in part.chunk(views)])

        if self.count == 1:
            return batch, noise
        smoothed = None if batch.smoothed is None else whole(batch.smoothed)
        x, y, example = (whole(part) for part in (batch.x, batch.y, batch.example))
        found = Batch(x, y, example, smoothed, batch.progress)
        return found, Noise(noise.seed, whole(noise.examples))

    def agreed(self, value: Value) -> Value:
        """Return the value that process 0 has.

        Args:
            value: anything that pickles; that of the others is not looked at.
        """
        if self.count == 1:
            return value
        found = [value]
        dist.broadcast_object_list(found, src=0, device=_device())
        return found[0]

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of process 0.

        Args:
            tensors: of the same shapes and types in each process; changed in place.
        """
        if self.count > 1:
            for tensor in tensors:
                found = tensor.detach().contiguous()
                dist.broadcast(found, src=0)
                tensor.detach().copy_(found)

    @contextmanager
    def normalising(self, model: nn.Module) -> Iterator[None]:
        """Let BatchNorm take the statistics of all rows, where it takes those of a minibatch.

        That is in train mode, of forward passes for the weights and of those of an attack that is
        crafted in train mode; the running averages are the same in every process. The layers keep
        their type and their names, and are left as found, also after an exception. A copy of the
        model that is made within stays changed.

        Args:
            model: every process has to make the same forward and backward passes with it.
        """
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        if self.count == 1:
            norms = []
        try:
            for norm in norms:
                norm.forward = partial(_normalise, norm)  # type: ignore[method-assign]
            yield
        finally:
            for norm in norms:
                norm.__dict__.pop("forward", None)

    def remember(self, method: Method, examples: Tensor) -> None:
        """Tell all processes the values that a method has learnt for a minibatch's examples.

        An example that two processes have keeps the smaller of its values.

        Args:
            method: after its `after_step`; one that keeps values per example has them in its state,
                in the ascending order of the ids in its entry `example`.
            examples: (N,) ids of the whole minibatch.
        """
        if self.count == 1 or not method.per_example:
            return
        state = method.state_dict()
        rows = torch.searchsorted(state["example"], examples)
        for name in method.per_example:
            learnt = self.whole(state[name][self.share(rows)], len(rows))
            # A minimum does not depend on the order in which a device writes an example twice.
            state[name] = state[name].scatter_reduce(0, rows, learnt, "amin", include_self=False)
        method.load_state_dict(state)

    def state_of(self, method: Method, rows: int) -> dict[str, Tensor]:
        """Return the state of a method for all rows of a minibatch, as one process would have it.

        Args:
            method: of this process.
            rows: of the largest minibatch that has been trained on.

        Raises:
            ValueError: if the processes do not agree in an entry that is the same for all rows.
        """
        state = method.state_dict()
        if self.count == 1:
            return state
        for name, mine in state.items():
            if name in method.row_state:
                state[name] = self.whole(mine, rows)
                continue
            first = mine.clone()
            self.spread([first])
            if self.added(float(not torch.equal(first, mine))):
                raise ValueError(
                    f"{_name(method)}: its state {name!r} differs between the processes, so that "
                    "they do not train one network; train it on one process"
                )
        return state

    def share_of(self, state: dict[str, Tensor], method: Method) -> dict[str, Tensor]:
        """Take this process's part of a state that `state_of` returned."""
        return {
            name: self.share(one) if name in method.row_state else one
            for name, one in state.items()
        }

    def refuse(self, method: Method, model: nn.Module, image: Tensor, smallest: int) -> None:
        """Refuse what several processes would not train as one does.

        Args:
            method: that is to be trained with.
            model: on its device; left as found.
            image: (1, C, H, W) in [0, 1], on that device.
            smallest: rows of the smallest minibatch.

        Raises:
            ValueError: saying what cannot be shared, and why.
        """
        if self.count == 1:
            return
        if cause := _entangled(method, model):
            raise ValueError(
                f"{_name(method)} cannot be shared by {self.count} processes: {cause}; train it on "
                "one process"
            )
        if smallest < self.count:
            raise ValueError(
                f"the smallest minibatch of an epoch has {smallest} rows, which {self.count} "
                "processes cannot share; choose another batch_size, or fewer processes"
            )
        if draws(model, image):
            raise ValueError(
                "the network draws random numbers by itself (dropout, stochastic depth?), which "
                f"{self.count} processes would not draw as one does; take that out of it, or train "
                "it on one process"
            )


ALONE = Processes()


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that the environment speaks of, as torchrun sets it.

    `RANK` and `WORLD_SIZE`, and where they meet: `MASTER_ADDR` and `MASTER_PORT`, or a file of this
    machine, `ADVTRAIN_MEETING`. Alone where there is none of them. They talk by NCCL on CUDA
    devices, else by gloo.

    Args:
        device: that this process computes on; every process needs one of its own.
    """
    rank, count = (int(os.environ.get(*one)) for one in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if count == 1:
        yield ALONE
        return
    if device.index is not None:
        torch.cuda.set_device(device)
    file = os.environ.get("ADVTRAIN_MEETING")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{file}" if file else "env://",
        rank=rank,
        world_size=count,
    )
    try:
        yield Processes(rank, count)
    finally:
        dist.destroy_process_group()


def _weighed(terms: Terms, weight: float) -> Terms:
    parts = {name: weight * part for name, part in terms.parts.items()}
    return Terms(weight * terms.total, terms.logits, parts)


def _name(method: Method) -> str:
    return type(method).__name__


def _device() -> torch.device:
    """Where a tensor has to be to be sent."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _entangled(method: Method, model: nn.Module) -> str:
    """Say what a method does with a row that depends on more than BatchNorm's statistics."""
    if method.by_place:
        return "a row's place in the minibatch decides how it is attacked"
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    if method.uneven and norms and getattr(method, "crafting", "eval") == "train":
        return "it crafts in train mode, where BatchNorm normalises together the rows that go on"
    return ""


def draws(model: nn.Module, image: Tensor) -> bool:
    """Whether a forward pass in train mode moves one of torch's global generators."""
    cuda = [image.device] if image.device.type == "cuda" else []

    def states() -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(one) for one in cuda)]

    with torch.random.fork_rng(cuda), crafting(model, "train"), torch.no_grad():
        before = states()
        model(image.repeat(2, 1, 1, 1))  # BatchNorm refuses one row
        return any(not torch.equal(*pair) for pair in zip(before, states(), strict=True))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Divide tensors, in their order, into lists of one type that are not much too large."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        length = tensor.numel() * tensor.element_size()
        if bucket and (size + length > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += length
    if bucket:
        yield bucket


def _sum(x: Tensor) -> Tensor:
    """The sum over the processes; its gradient is the sum of theirs, to any order."""
    total: Tensor = _Sum.apply(x)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    """BatchNorm's forward pass, by the statistics of the rows of all processes.

    Each process sends the count, the sum and the sum of squares of its rows. They are made from its
    mean and variance and added in float64, so that the difference of large numbers costs nothing.
    """
    if not norm.training and norm.running_mean is not None:
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)  # type: ignore[no-untyped-call]
    channels = x.shape[1]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=[0, *range(2, x.dim())], correction=0)
    mean, variance = mean.double(), variance.double()
    rows = mean.new_full((1,), x.numel() / channels)
    total = _sum(torch.cat([rows, rows * mean, rows * (variance + mean**2)]))
    count = total[0].detach()
    mean = total[1 : channels + 1] / count
    variance = (total[channels + 1 :] / count - mean**2).clamp_min(0)
    if norm.training and norm.track_running_stats:
        _track(norm, mean.detach(), (variance * (count / (count - 1))).detach())
    return _standardised(norm, x, mean, variance)


def _standardised(norm: _BatchNorm, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Scale and shift x as BatchNorm does; mean and variance (C,) have their gradients.

    By torch's kernel for given statistics, which is fused but takes them for constants. Their
    gradient goes through the scale and the shift: with m and s for the constants,

        w (x - mean) / deviation + b = (w s / deviation) (x - m) / s + b + w (m - mean) / deviation
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    inverse = (variance + norm.eps).rsqrt()
    weight = inverse.new_ones(len(mean)) if norm.weight is None else norm.weight.double()
    bias = inverse.new_zeros(len(mean)) if norm.bias is None else norm.bias.double()
    scale = weight * (inverse / inverse.detach())
    shift = bias + weight * (mean.detach() - mean) * inverse
    return F.batch_norm(
        x,
        mean.detach().to(kind),
        variance.detach().to(kind),
        scale.to(kind),
        shift.to(kind),
        training=False,
        eps=norm.eps,
    )


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running averages as BatchNorm does."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None  # the three are there together
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.mul_(1 - momentum).add_(mean.to(norm.running_mean.dtype), alpha=momentum)
    norm.running_var.mul_(1 - momentum).add_(variance.to(norm.running_var.dtype), alpha=momentum)
