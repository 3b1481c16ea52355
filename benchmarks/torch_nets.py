"""The nets in PyTorch, layer by layer those of the prototxt files, and their training."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class WithinChannelLRN(nn.Module):
    """Caffe's LRN with norm_region WITHIN_CHANNEL, local_size 3, alpha 5e-5 and beta 0.75."""

    def forward(self, x: Tensor) -> Tensor:
        scale = 1 + 5e-5 * functional.avg_pool2d(x * x, 3, stride=1, padding=1)
        return x * scale**-0.75


def cifar10_full() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU()),
        WithinChannelLRN(),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)),
        WithinChannelLRN(),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)),
        *(nn.Flatten(), nn.Linear(64 * 4 * 4, 10)),
    )


def digits() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 2 * 2, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


# a net and the shape of its batch
NETS = {"cifar10_full": (cifar10_full, (100, 3, 32, 32)), "digits": (digits, (50, 1, 8, 8))}


class Training:
    """A net in training on one random batch, with momentum and CyclicLR."""

    def __init__(self, name: str, layout: torch.memory_format) -> None:
        net, shape = NETS[name]
        torch.manual_seed(0)
        self._net = net().to(memory_format=layout)  # type: ignore[call-overload]
        self._images = torch.randn(shape).to(memory_format=layout)
        self._labels = torch.randint(0, 10, shape[:1])
        self._optimizer = torch.optim.SGD(
            self._net.parameters(), lr=0.001, momentum=0.9, weight_decay=0.004
        )
        self._schedule = torch.optim.lr_scheduler.CyclicLR(
            *(self._optimizer, 0.001, 0.006, 2000), mode="triangular2", cycle_momentum=False
        )

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._net.parameters())

    def step(self) -> None:
        self._optimizer.zero_grad()
        self._loss = functional.cross_entropy(self._net(self._images), self._labels)
        self._loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def loss(self) -> float:
        return self._loss.item()
