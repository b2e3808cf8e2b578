"""Attention and layer norm on tokens: a dynamic batch, plain operators, and the network's answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import loaded
from networks import TRACED, Case, made
from torch import nn
from torch.nn import functional

from edgekit.errors import BadInputError
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.export.operator_check import check_operators
from edgekit.export.operator_table import load_table
from edgekit.export.parity import check_parity, measure_parity
from edgekit.export.trace import trace
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.options import MapOptions
from edgekit.teacher.tap import Tap

SIDE = (16, 16)
WIDTH, HEADS, WINDOW = 12, 3, 2


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.0)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = _Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    """A class token, a table of positions, two blocks, and a classifier of the token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.place = nn.Parameter(torch.randn(1, 17, WIDTH))
        self.blocks = nn.Sequential(_Block(), _Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


class Packed(Vision):
    """The attention of torch itself, which calls functions that have to be exchanged in turn: as torchvision's ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        y = self.norm(x)
        return self.head((x + self.mixer(y, y, y, need_weights=False)[0])[:, 0])


class Windows(nn.Module):
    """Maps with the channels last, cut into windows that are shifted, and merged patches: as Swin does it."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.merge = nn.Linear(4 * WIDTH, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        for shift, block in enumerate(self.blocks):
            x = torch.roll(x, (-shift, -shift), (1, 2))
            batch, height, width, channels = x.shape
            x = x.view(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels).permute(0, 1, 3, 2, 4, 5)
            x = block(x.reshape(-1, WINDOW * WINDOW, channels))
            x = x.view(batch, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels).permute(0, 1, 3, 2, 4, 5)
            x = torch.roll(x.reshape(batch, height, width, channels), (shift, shift), (1, 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.norm(self.merge(x)).mean((1, 2)))


class ChannelsLast(nn.Module):
    """Depthwise convolution, layer norm over the channels of a map, and a pooled, normalised head: as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.grow, self.shrink = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.pool, self.last, self.head = nn.AdaptiveAvgPool2d(1), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x)
        y = self.norm(self.mix(x).permute(0, 2, 3, 1))
        x = x + self.shrink(functional.gelu(self.grow(y))).permute(0, 3, 1, 2)
        x = self.pool(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        return self.head(self.last(x).permute(0, 3, 1, 2).flatten(1))


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("factory", [Vision, Packed, Windows, ChannelsLast])
def test_any_batch_and_operators_that_tensorrt_reads(factory: type[nn.Module], opset: int, tmp_path: Path) -> None:
    case = Case("transformer", factory, SIDE, {"patch": TRACED}, "patch")
    model = made(factory)
    raw = explained_onnx(loaded(case, "patch", model), MapOptions(), use_closed_form=False, opset=opset)
    explained, reports = cleaned_onnx(raw, lambda _model: None)
    assert not [report for report in reports if report.rolled_back]
    table = load_table("tensorrt-8.6" if opset == 17 else "tensorrt-10.0")
    assert check_operators(explained.model, table) == ()
    (tmp_path / "m.onnx").write_bytes(explained.model.SerializeToString())
    # Sixteen at a time, then the rest: neither is the batch of two that the graph was traced with.
    parity = measure_parity(model, Explainer(GRAD_CAM, (Tap("patch"),)), tmp_path / "m.onnx", case.images(19).numpy())
    check_parity(parity, 1e-4)
    assert explained.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_network_that_counts_its_images_is_refused() -> None:
    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), -1)

    with pytest.raises(BadInputError, match="number of images") as caught:
        trace(Counting(), (torch.rand(2, 3, 4, 4),), Counting())
    assert "x.shape[0]" in str(caught.value.hint)
