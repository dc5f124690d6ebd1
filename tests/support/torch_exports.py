"""Small torch modules of the usual kinds, with example inputs and their open axes, for export to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Bert(nn.Module):
    """One layer of attention with a mask, on the sum of three embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.types, self.positions = nn.Embedding(50, 16), nn.Embedding(2, 16), nn.Embedding(64, 16)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.norm, self.out = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, ids: Any, mask: Any, types: Any) -> Any:
        rows, steps = ids.shape
        hidden = self.norm(self.words(ids) + self.types(types) + self.positions(torch.arange(steps))[None])

        def heads(layer: nn.Module) -> Any:
            return layer(hidden).view(rows, steps, 4, 4).transpose(1, 2)

        scores = heads(self.query) @ heads(self.key).transpose(-1, -2) / 2 + (1 - mask[:, None, None, :].float()) * -1e4
        hidden = hidden + (scores.softmax(-1) @ heads(self.value)).transpose(1, 2).reshape(rows, steps, 16)
        return self.out(hidden[:, 0]), hidden


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(5, 8, 2, batch_first=True, bidirectional=True), nn.Linear(16, 2)

    def forward(self, x: Any) -> Any:
        return self.out(self.lstm(x)[0][:, -1])


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 8, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.gru(x)[0].mean(1)


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.out = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 5)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)

    def forward(self, x: Any) -> Any:
        hidden = self.patches(x).flatten(2).transpose(1, 2)
        hidden = torch.cat([self.token.expand(x.shape[0], -1, -1), hidden], 1) + self.positions
        return self.out(self.encoder(hidden)[:, 0])


class Recogniser(nn.Module):
    """Text recognition: convolution, then a recurrence along the line of text."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 8, 3, (2, 1), 1), nn.Linear(16, 10)
        self.lstm = nn.LSTM(8, 8, bidirectional=True, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.out(self.lstm(self.conv(x).mean(2).transpose(1, 2))[0]).log_softmax(-1)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(-1),
    )  # fmt: skip


def detector() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(8, 4, 2, 2), nn.Sigmoid()
    )


Export = tuple[nn.Module, tuple[Any, ...], dict[str, dict[int, str]]]
_IDS = torch.zeros(2, 7, dtype=torch.long)
EXPORTS: dict[str, Callable[[], Export]] = {
    "bert": lambda: (Bert(), (_IDS,) * 3, {name: {0: "n", 1: "t"} for name in ("ids", "mask", "types")}),
    "lstm": lambda: (Lstm(), (torch.zeros(2, 7, 5),), {"x": {0: "n", 1: "t"}}),
    "gru": lambda: (Gru(), (torch.zeros(2, 7, 5),), {"x": {0: "n", 1: "t"}}),
    "vision transformer": lambda: (VisionTransformer(), (torch.zeros(2, 3, 32, 32),), {"x": {0: "n"}}),
    "cnn": lambda: (cnn(), (torch.zeros(2, 3, 32, 32),), {"x": {0: "n", 2: "h", 3: "w"}}),
    "detector": lambda: (detector(), (torch.zeros(2, 1, 32, 32),), {"x": {0: "n", 2: "h", 3: "w"}}),
    "recogniser": lambda: (Recogniser(), (torch.zeros(2, 1, 32, 64),), {"x": {0: "n", 3: "w"}}),
    "mlp": lambda: (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.zeros(2, 4),), {"x": {0: "n"}}),
}
