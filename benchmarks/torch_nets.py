"""The same nets as in the prototxt files, layer by layer, in PyTorch, and their training."""

from itertools import pairwise

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


def cifar10_sigmoid_bn() -> nn.Module:
    def normalized(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, momentum=0.001, affine=False)

    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2, bias=False), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(normalized(32), nn.Sigmoid()),
        *(nn.Conv2d(32, 32, 5, padding=2, bias=False), normalized(32), nn.Sigmoid()),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        *(nn.Conv2d(32, 64, 5, padding=2, bias=False), normalized(64), nn.Sigmoid()),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        *(nn.Flatten(), nn.Linear(64 * 4 * 4, 10)),
    )


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self._padding = outputs - inputs
        self._stride = 2 if self._padding else 1
        self._residual = nn.Sequential(
            *(_convolution(inputs, outputs, stride=self._stride), nn.BatchNorm2d(outputs)),
            nn.ReLU(inplace=True),
            *(_convolution(outputs, outputs), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self._residual(x)
        if self._padding:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self._padding))
        return functional.relu(residual + x, inplace=True)


def resnet_20() -> nn.Module:
    return _resnet(3)


def resnet_110() -> nn.Module:
    return _resnet(18)


def _resnet(blocks: int) -> nn.Module:
    layers = [_convolution(3, 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    channels = [16, *[16] * blocks, *[32] * blocks, *[64] * blocks]
    layers += [ResidualBlock(*pair) for pair in pairwise(channels)]
    return nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth_rate: int) -> None:
        super().__init__()
        self._added = nn.Sequential(*_dense(inputs, growth_rate))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self._added(x)], 1)


def _dense(inputs: int, outputs: int, kernel: int = 3) -> list[nn.Module]:
    return [
        *(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)),
        _convolution(inputs, outputs, kernel),
    ]


def densenet_40() -> nn.Module:
    layers, channels = [_convolution(3, 16)], 16
    for block in range(3):
        for _ in range(12):
            layers.append(DenseLayer(channels, 12))
            channels += 12
        if block < 2:
            layers += [*_dense(channels, channels, 1), nn.AvgPool2d(2)]
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AvgPool2d(8), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, 10))


def alexnet() -> nn.Module:
    def normalized() -> nn.Module:
        return nn.LocalResponseNorm(5, 1e-4, 0.75)

    def relu() -> nn.Module:
        return nn.ReLU(inplace=True)

    return nn.Sequential(
        *(nn.Conv2d(3, 96, 11, 4), relu(), normalized(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), relu(), normalized(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), relu()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), relu()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), relu(), nn.MaxPool2d(3, 2)),
        *(nn.Flatten(), nn.Linear(256 * 6 * 6, 4096), relu(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), relu(), nn.Dropout(0.5), nn.Linear(4096, 1000)),
    )


def large() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 56 * 56, 10))


# a net and the shape of its batch
NETS = {
    "cifar10_full": (cifar10_full, (100, 3, 32, 32)),
    "digits": (digits, (50, 1, 8, 8)),
    "cifar10_sigmoid_bn": (cifar10_sigmoid_bn, (100, 3, 32, 32)),
    "resnet_20": (resnet_20, (128, 3, 32, 32)),
    "resnet_110": (resnet_110, (128, 3, 32, 32)),
    "densenet_40": (densenet_40, (64, 3, 32, 32)),
    "alexnet": (alexnet, (32, 3, 227, 227)),
    "alexnet_1": (alexnet, (1, 3, 227, 227)),
    "large": (large, (4, 3, 224, 224)),
}


class Training:
    """A net in training on one random batch, with momentum and CyclicLR."""

    def __init__(self, name: str, layout: torch.memory_format, device: str = "cpu") -> None:
        net, shape = NETS[name]
        torch.manual_seed(0)
        self._net = net().to(device, memory_format=layout)
        self._images = torch.randn(shape).to(device, memory_format=layout)
        self._labels = torch.randint(0, 10, shape[:1]).to(device)
        self._optimizer = torch.optim.SGD(
            self._net.parameters(), lr=0.001, momentum=0.9, weight_decay=0.004
        )
        self._schedule = torch.optim.lr_scheduler.CyclicLR(
            self._optimizer,
            base_lr=0.001,
            max_lr=0.006,
            step_size_up=2000,
            mode="triangular2",
            cycle_momentum=False,
        )

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._net.parameters())

    def compile(self) -> None:
        self._net.compile()

    def step(self) -> None:
        self._optimizer.zero_grad()
        self._loss = functional.cross_entropy(self._net(self._images), self._labels)
        self._loss.backward()
        self._optimizer.step()
        self._schedule.step()

    def loss(self) -> float:
        return float(self._loss.item())
