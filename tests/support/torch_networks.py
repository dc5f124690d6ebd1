"""Small networks of the usual architectures, with example inputs whose first axis is the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from support.torch_exports import Bert, Gru, Lstm, Recogniser, VisionTransformer, cnn, detector
from torch import Tensor, nn


def _conv(inside: int, outside: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outside)
    )


class ResNet(nn.Module):
    """Two residual blocks, with additions and activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = _conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1)
        self.first = nn.Sequential(_conv(8, 8), nn.ReLU(inplace=True), _conv(8, 8))
        self.second = nn.Sequential(_conv(8, 16, 3, 2), nn.ReLU(inplace=True), _conv(16, 16))
        self.short, self.relu = _conv(8, 16, 1, 2), nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(x)))
        y = self.first(x)
        y += x
        x = self.relu(y)
        y = self.second(x)
        y += self.short(x)
        return self.head(self.relu(y))


class Inverted(nn.Module):
    """The block of MobileNet and EfficientNet: widen, convolve each channel, weigh the channels, narrow."""

    def __init__(self, activation: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.wide, self.deep, self.narrow = _conv(8, 24, 1), _conv(24, 24, 3, 1, 24), _conv(24, 8, 1)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.activation, self.gate = activation(inplace=True), gate()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.deep(self.activation(self.wide(x))))
        weight = self.gate(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.narrow(y * weight)


def inverted(activation: type[nn.Module], gate: type[nn.Module]) -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 5)]
    blocks = [Inverted(activation, gate), Inverted(activation, gate)]
    return nn.Sequential(_conv(3, 8, 3, 2), activation(inplace=True), *blocks, *head)


class Segmenter(nn.Module):
    """Down, up, and joined again: a U-Net, as text detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = _conv(1, 8, 3, 2), _conv(8, 8, 3, 2)
        self.up, self.out = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = F.relu(self.down(x))
        low = self.up(F.relu(self.deep(high)))
        both = self.out(torch.cat([high, F.interpolate(low, high.shape[2:], mode="nearest")], 1))
        return F.interpolate(both, scale_factor=2.0, mode="bilinear", align_corners=False).sigmoid()


class Crnn(nn.Module):
    """Text recognition with the time first, as CTC wants it, and back again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), _conv(8, 8), nn.ReLU(), nn.MaxPool2d((4, 1)))
        self.lstm, self.out = nn.LSTM(8, 8, bidirectional=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        features = features.squeeze(2).permute(2, 0, 1)
        steps, rows, _ = features.shape
        found, _ = self.lstm(features)
        found = self.out(found.reshape(steps * rows, 16)).view(steps, rows, 10)
        return found.log_softmax(2).permute(1, 0, 2)


class Encoder(nn.Module):
    """A text encoder: words and places, attention with a mask, the mean of the words that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(64, 16)
        self.norm, self.attention, self.out = (
            nn.LayerNorm(16),
            nn.MultiheadAttention(16, 4, batch_first=True),
            nn.Linear(16, 3),
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0).expand_as(ids)
        x = self.norm(self.words(ids) + self.places(places))
        rows, steps, _ = x.shape
        heads = x.view(rows, steps, 4, 4).transpose(1, 2)
        wide = mask[:, None, None, :].to(torch.bool).expand(rows, 1, steps, steps)
        found = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=wide)
        x = x + found.transpose(1, 2).contiguous().view(rows, steps, 16)
        there = mask.unsqueeze(-1).to(x.dtype)
        return F.normalize((self.out(x) * there).sum(1) / there.sum(1).clamp(min=1e-9), dim=1)


class Quantised(nn.Module):
    """Eight bits with constant scales, as training with quantisation leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.register_buffer("scales", torch.rand(8) + 0.1)
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(self.conv.weight, self.scales, self.zeros, 0, -128, 127)
        x = F.relu(F.conv2d(x, weight, self.conv.bias)).mean((2, 3))
        return self.out(torch.fake_quantize_per_tensor_affine(x, 0.2, 0, -128, 127))


class Conformer(nn.Module):
    """Sound: windows by unfold, a gate, attention by einsum, and shifts along the time."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep = nn.Conv1d(8, 16, 1), nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.norm, self.out = nn.GroupNorm(2, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unfold(1, 8, 4).transpose(1, 2)
        y = self.norm(self.deep(F.glu(self.wide(frames), 1)))
        scores = torch.einsum("bct,bcs->bts", y, y).softmax(-1)
        y = torch.einsum("bts,bcs->bct", scores, y)
        y = y + torch.cat([y[:, :, 1:], torch.zeros_like(y[:, :, :1])], 2)
        return self.out(y.transpose(1, 2))


IDS, MASK = torch.zeros(3, 7, dtype=torch.long), torch.ones(3, 7, dtype=torch.long)
Network = tuple[nn.Module, tuple[Any, ...]]
NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.Softmax(-1)), (torch.randn(3, 4),)),
    "cnn": lambda: (cnn(), (torch.randn(3, 3, 32, 32),)),
    "resnet": lambda: (ResNet(), (torch.randn(3, 3, 32, 32),)),
    "mobilenet": lambda: (inverted(nn.Hardswish, nn.Hardsigmoid), (torch.randn(3, 3, 32, 32),)),
    "efficientnet": lambda: (inverted(nn.SiLU, nn.Sigmoid), (torch.randn(3, 3, 32, 32),)),
    "vision transformer": lambda: (VisionTransformer(), (torch.randn(3, 3, 32, 32),)),
    "bert": lambda: (Bert(), (IDS, MASK, IDS)),
    "text encoder": lambda: (Encoder(), (IDS, MASK)),
    "lstm": lambda: (Lstm(), (torch.randn(3, 7, 5),)),
    "gru": lambda: (Gru(), (torch.randn(3, 7, 5),)),
    "detector": lambda: (detector(), (torch.randn(3, 1, 32, 32),)),
    "segmenter": lambda: (Segmenter(), (torch.randn(3, 1, 32, 32),)),
    "recogniser": lambda: (Recogniser(), (torch.randn(3, 1, 32, 64),)),
    "crnn": lambda: (Crnn(), (torch.randn(3, 1, 8, 24),)),
    "quantised": lambda: (Quantised(), (torch.randn(3, 3, 16, 16),)),
    "conformer": lambda: (Conformer(), (torch.randn(3, 64),)),
}
# Those that torch.jit.script takes.
SCRIPTED = tuple(sorted(set(NETWORKS) - {"vision transformer", "bert", "lstm", "gru", "recogniser"}))
