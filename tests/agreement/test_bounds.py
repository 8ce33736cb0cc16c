"""Bounds beside auto_LiRPA, where it is installed and can be imported."""

import pytest
import torch
from torch import Tensor, nn

from advtrain.bounds import crown, interval
from tests.bounds.networks import CLASSES, images, labels, network

auto_LiRPA = pytest.importorskip(  # noqa: N816
    "auto_LiRPA",
    reason="auto_LiRPA is not installed, or not for this torch (0.3 on the index needs < 1.13)",
    exc_type=ImportError,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other package's own

EPSILON = 0.02
NETWORKS = ("small_cnn", "perceptron")


def theirs(name: str, method: str) -> Tensor:
    """Upper bounds (N, K - 1) on z_k - z_y for k other than y."""
    model, x, y = bare(name), images(), labels()
    lower, upper = interval.ball(x, EPSILON)
    bounded = auto_LiRPA.BoundedModule(model, torch.empty_like(x))
    ball = auto_LiRPA.PerturbationLpNorm(norm=torch.inf, x_L=lower, x_U=upper)
    unit = torch.eye(CLASSES, dtype=x.dtype)
    rows = torch.stack([unit[k] - unit[[c for c in range(CLASSES) if c != k]] for k in y])
    found, _ = bounded.compute_bounds(
        x=(auto_LiRPA.BoundedTensor(x, ball),), C=rows, method=method, bound_upper=False
    )
    return -found.detach()


def bare(name: str) -> nn.Module:
    """The network without its normalisation, which is of a kind that traces do not hold."""
    return nn.Sequential(*list(network(name))[1:]) if name == "small_cnn" else network(name)


def others(worst: Tensor) -> Tensor:
    kept = torch.ones_like(worst).scatter(1, labels()[:, None], 0.0).bool()
    return worst[kept].view(len(worst), -1).detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_interval_bounds_agree(name: str) -> None:
    ours = others(interval.worst_case_logits(bare(name), images(), labels(), EPSILON))
    torch.testing.assert_close(ours, theirs(name, "IBP"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("mode", "method"), [("ibp", "IBP+backward"), ("crown", "backward")])
def test_linear_bounds_agree(name: str, mode: str, method: str) -> None:
    ours, _ = crown.worst_case_logits(bare(name), images(), labels(), EPSILON, intermediate=mode)
    torch.testing.assert_close(others(ours), theirs(name, method), rtol=0, atol=1e-9)
