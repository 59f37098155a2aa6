"""A network whose path depends on its data: fake tensors have none."""

from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 224 * 224, 1000)

    def forward(self, x):
        x = x.flatten(1)
        return self.layer(x if x.sum().item() > 0 else -x)


def network():
    return Network()
