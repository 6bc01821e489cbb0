"""Referring segmentation: the mask of what a sentence names.

Papers: RefVOS (arXiv 2010.00263: DeepLabv3's head with a sentence in it), "Scaling Up Your Kernels"
(2410.08049, section 3.4 and Table 15). Names of the RefVOS head's submodules are the authors'.

Legend: N batch, C channels, H x W image, L words, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import unknown
from .fusion import Fusion

RATES = (12, 24, 36)  # of RefVOS, at stride 8


def _conv_bn_relu(
    in_channels: int, channels: int, kernel_size: int = 1, rate: int = 1, bias: bool = False
) -> list[nn.Module]:
    padding = kernel_size // 2 * rate
    return [
        nn.Conv2d(in_channels, channels, kernel_size, padding=padding, dilation=rate, bias=bias),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]


class _Branch(nn.Sequential):
    """Convolution, batch norm and ReLU, without an entry for the ReLU's parameters."""


class _PoolBranch(nn.Sequential):
    def __init__(self, in_channels: int, channels: int):
        super().__init__(nn.AdaptiveAvgPool2d(1), *_conv_bn_relu(in_channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


class _SentenceASPP(nn.Module):
    def __init__(
        self, in_channels: int, sentence: int, channels: int, rates: Sequence[int], fusion: str
    ):
        super().__init__()
        if fusion not in ("product", "addition"):
            raise unknown("fusion", fusion, ("product", "addition"))
        self.fusion = fusion
        self.convs = nn.ModuleList([_Branch(*_conv_bn_relu(in_channels, channels))])
        self.convs.extend(_Branch(*_conv_bn_relu(in_channels, channels, 3, r)) for r in rates)
        self.convs.append(_PoolBranch(in_channels, channels))
        branches = len(self.convs)
        self.project = nn.Sequential(*_conv_bn_relu(branches * channels, channels), nn.Dropout(0.5))
        self.embedding_project = nn.Sequential(
            nn.Linear(sentence, channels), nn.BatchNorm1d(channels)
        )
        self.project_final = nn.Sequential(*_conv_bn_relu(channels, channels), nn.Dropout(0.5))

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        visual = self.project(torch.cat([conv(x) for conv in self.convs], 1))
        language = self.embedding_project(sentence)[:, :, None, None]
        both = visual * language if self.fusion == "product" else (visual + language) / 2
        return self.project_final(both)


class RefVOSHead(nn.Module):
    """RefVOS' head: ASPP, the sentence's vector fused in, two convolutions.

    Args:
        in_channels: C of the features.
        num_classes: 2, background and object.
        sentence: width of the sentence's vector.
        channels: of the layers.
        rates: dilations of ASPP.
        fusion: "product", or "addition" for the mean of both.

    Shape: (N, C, h, w), (N, sentence) -> (N, num_classes, h, w)
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int = 2,
        sentence: int = 768,
        channels: int = 256,
        rates: Sequence[int] = RATES,
        fusion: str = "product",
    ):
        super().__init__()
        self.aspp = _SentenceASPP(in_channels, sentence, channels, rates, fusion)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        return self.conv_2(F.relu(self.bn(self.conv(self.aspp(x, sentence)))))


class WordEncoder(nn.Module):
    """Words to vectors: an embedding and a bidirectional GRU, for vocabularies of a data set.

    Shape: ids (N, L), 0 for padding, with a mask (N, L) -> (N, D, L)
    """

    def __init__(self, words: int, dim: int = 128):
        super().__init__()
        self.embedding = nn.Embedding(words, dim, padding_idx=0)
        self.gru = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)

    def forward(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        embedded = self.embedding(ids_NL)
        # Packing keeps padding out of the backward direction; an empty sentence has one zero word.
        lengths = mask_NL.sum(1).clamp_min(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            embedded, lengths, batch_first=True, enforce_sorted=False
        )
        output, _ = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=ids_NL.shape[1]
        )
        return (output * mask_NL[:, :, None]).transpose(1, 2)


class ReferringSegmenter(nn.Module):
    """Image and words -> logits of the mask.

    Features of three strides of an image network are brought to the middle one and C channels,
    fused with the words, refined, and enlarged to the image; features of the lowest stride make the
    outline sharper on the way.

    Args:
        backbone: a timm network made with `features_only=True`; its last three maps are fused.
        words: size of the vocabulary, padding (0) included.
        channels: C.
        word_dim: D.
        fusion: "asymmetric", "product" or "acm", see `Fusion`.
        kernel_size: of the asymmetric fusion.
        positions: give the map two channels of coordinates, since words name places.
        outline: use the first map of the backbone too, if it has a fourth one.

    Shape: (N, 3, H, W), ids (N, L), mask (N, L) -> (N, 1, H, W)
    """

    def __init__(
        self,
        backbone: nn.Module,
        words: int,
        channels: int = 128,
        word_dim: int = 128,
        fusion: str = "asymmetric",
        kernel_size: int = 0,
        positions: bool = True,
        outline: bool = True,
    ):
        super().__init__()
        self.backbone = backbone
        every = backbone.feature_info.channels()
        widths = every[-3:]
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.text = WordEncoder(words, word_dim)
        extra = 2 if positions else 0
        self.positions = positions
        self.mix = nn.Sequential(*_conv_bn_relu(channels + extra, channels, 3))
        self.fusion = Fusion(channels, word_dim, fusion, kernel_size)
        self.outline = nn.Conv2d(every[-4], channels, 1) if outline and len(every) > 3 else None
        self.locate = nn.Sequential(*_conv_bn_relu(channels, channels, 3))
        self.refine = nn.Sequential(
            *_conv_bn_relu(channels, channels, 3), nn.Conv2d(channels, 1, 1)
        )

    def forward(
        self, image: Tensor, words_NL: Tensor | None = None, mask_NL: Tensor | None = None
    ) -> Tensor:
        """See the class. Without words, of which there is then none, the sentence is empty."""
        if words_NL is None:
            words_NL = torch.zeros(len(image), 1, dtype=torch.long, device=image.device)
        mask = words_NL != 0 if mask_NL is None else mask_NL
        *lower, first, middle, last = self.backbone(image)
        maps, size = (first, middle, last), middle.shape[2:]
        parts = [
            F.interpolate(conv(x), size=size, mode="bilinear", align_corners=False)
            for conv, x in zip(self.lateral, maps, strict=True)
        ]
        x = parts[0] + parts[1] + parts[2]
        if self.positions:
            rows = torch.linspace(-1, 1, size[0], device=x.device, dtype=x.dtype)
            columns = torch.linspace(-1, 1, size[1], device=x.device, dtype=x.dtype)
            grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
            x = torch.cat([x, grid.expand(len(x), -1, -1, -1)], 1)
        x = self.fusion(self.mix(x), self.text(words_NL, mask), mask)
        x = self.locate(x)
        if self.outline is not None:
            fine = self.outline(lower[-1])
            x = F.interpolate(x, size=fine.shape[2:], mode="bilinear", align_corners=False)
            x = F.relu(x + fine)
        logits = self.refine(x)
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)

    def example_input(self) -> Tensor:
        """Images (2, 3, 64, 64), for `seewide.fuse`."""
        return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
