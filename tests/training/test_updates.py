import torch
from torch import nn

from advtrain.methods.method import Terms
from advtrain.training.updates import plain


def test_plain_is_one_gradient_step() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.tensor([[1.0, 2.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss() -> Terms:
        logits = model(x)
        return Terms((logits**2).sum() / 2, logits, {})

    terms = plain(model, optimizer, loss)
    assert terms.total.item() == 4.5
    # The gradient is logit * x = 3 * (1, 2).
    assert torch.allclose(model.weight, torch.tensor([[0.7, 0.4]]))
    plain(model, optimizer, loss)
    # A gradient left from the first step would have been added: logit = 1.5.
    assert torch.allclose(model.weight, torch.tensor([[0.55, 0.1]]))
