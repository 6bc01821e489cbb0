"""Effective receptive fields against known ones."""

import numpy as np
import pytest
import timm
import torch
from matplotlib.image import imread
from torch import nn

from seewide.analysis.cost import peak_memory
from seewide.analysis.erf import ERF, PROTOCOLS, Protocol, draw_erf, effective_receptive_field
from seewide.errors import InputError


def positive_conv(kernel, dilation=1, stride=1, channels=4):
    """Depthwise, with positive weights and outputs, so that each weight has a gradient."""
    conv = nn.Conv2d(
        channels, channels, kernel, stride, tuple(k // 2 * dilation for k in kernel), dilation,
        groups=channels,
    )  # fmt: skip
    nn.init.uniform_(conv.weight, 0.1, 1)
    nn.init.constant_(conv.bias, 1e4)
    return conv


@pytest.mark.parametrize("kernel", [(1, 1), (7, 7), (13, 13), (31, 31), (5, 21)])
def test_support_of_a_depthwise_convolution_is_its_kernel(kernel):
    conv = positive_conv(kernel)
    erf = effective_receptive_field(conv, torch.randn(3, 4, 40, 47), features=conv)
    assert erf.contribution.dtype == np.float64
    assert erf.contribution.shape == (40, 47)
    assert erf.images == 3
    assert erf.support == kernel
    assert erf.side(0.999999, linear=True) == max(kernel)


def test_support_of_stacked_convolutions():
    model = nn.Sequential(positive_conv((7, 7)), positive_conv((5, 5), dilation=2))
    erf = effective_receptive_field(model, torch.randn(1, 4, 40, 40), features=model)
    assert erf.support == (7 + 8, 7 + 8)


def test_negative_gradients_and_features_do_not_contribute():
    """Neither a pixel with a negative weight nor a negative feature."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[1.0, -2, 3], [-4, 5, -6], [7, -8, 9]]]]))
    for bias, expected in ((1e4, [[1, 0, 3], [0, 5, 0], [7, 0, 9]]), (-1e4, np.zeros((3, 3)))):
        nn.init.constant_(conv.bias, bias)
        erf = effective_receptive_field(conv, torch.randn(2, 1, 9, 9), features=conv)
        np.testing.assert_allclose(erf.contribution[3:6, 3:6], expected)


def test_area_ratio_of_a_known_map():
    erf = ERF(np.pad(np.ones((5, 5)), 8), images=1)  # 25 equal pixels in 21 x 21
    assert erf.side(0.0) == 1
    assert erf.side(9 / 25 - 1e-9) == 3
    assert erf.side(9 / 25 + 1e-9) == 5
    assert erf.area_ratio(0.99) == pytest.approx(25 / 441)
    assert erf.area_ratios() == pytest.approx(
        {0.2: 9 / 441, 0.3: 9 / 441, 0.5: 25 / 441, 0.99: 25 / 441}
    )


def test_scores_are_log10_of_the_contribution_plus_one():
    """The scale matters: the logarithm is not scale-invariant."""
    contribution = np.zeros((3, 3))
    contribution[1] = 9, 99, 0.5
    scores = ERF(contribution, images=1).scores
    np.testing.assert_allclose(scores[1], [0.5, 1, np.log10(1.5) / 2], rtol=1e-12)
    assert not scores[[0, 2]].any()


def test_linear_shares_do_not_use_the_logarithm():
    contribution = np.ones((9, 9))
    contribution[4, 4] = 1e6
    erf = ERF(contribution, images=1)
    assert erf.scores.max() == 1
    assert erf.side(0.5, linear=True) == 1
    assert erf.side(0.5) > 1


def test_smallest_square_by_exhaustive_search():
    erf = ERF(np.random.default_rng(0).random((24, 19)) ** 4, images=1)
    for threshold in (0.2, 0.3, 0.5, 0.9):
        row, column = 12, 9
        for i in range(24):
            box = erf.scores[max(row - i, 0) : row + i + 1, max(column - i, 0) : column + i + 1]
            if box.sum() > threshold * erf.scores.sum():
                break
        assert erf.side(threshold) == 2 * i + 1


def test_the_state_of_the_model_is_restored():
    model = timm.create_model("test_convnext").train()
    model.head.eval()
    model.stem.requires_grad_(False)
    before = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    erf = effective_receptive_field(model, [torch.randn(3, 64, 48)], progress=True)
    assert erf.contribution.shape == (64, 48)
    assert 0 < erf.area_ratio(0.2) <= erf.area_ratio(0.99) <= 1
    assert [module.training for module in model.modules()] == before
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_protocols_resize_to_their_size():
    """3 x 3 pixels at both sizes: r(99%) is 9 / 1024^2 and 9 / 224^2."""
    assert {"replknet": Protocol(50, 1024), "uniconvnet": Protocol(1000, 224)} == PROTOCOLS
    conv = positive_conv((3, 3), channels=1)
    for name, protocol in PROTOCOLS.items():
        images = torch.rand(1, 1, protocol.side, protocol.side).expand(1000, -1, -1, -1)
        erf = effective_receptive_field(conv, images, name, features=conv)
        assert erf.images == protocol.images
        assert erf.area_ratio(0.99) == 9 / protocol.side**2


def test_protocols_take_their_number_of_images():
    conv = positive_conv((3, 3))
    images = torch.randn(5, 4, 10, 12)
    erf = effective_receptive_field(conv, images, Protocol(images=4, side=32), features=conv)
    assert erf.contribution.shape == (32, 32)
    assert erf.images == 4
    with pytest.raises(InputError, match="needs 50 images, got 2"):
        effective_receptive_field(conv, images[:2], "replknet", features=conv)
    with pytest.raises(InputError, match=r"'repln'.*did you mean replknet"):
        effective_receptive_field(conv, images, "repln", features=conv)


def test_erf_of_a_linear_network_is_the_convolution_of_its_kernels():
    """With positive kernels, so that the ReLU of the gradient removes nothing."""
    from scipy.signal import convolve2d

    kernels = [torch.rand(1, 1, *size).double() for size in ((3, 5), (7, 7), (1, 3))]
    convs = [nn.Conv2d(1, 1, k.shape[2:], padding="same", bias=False) for k in kernels]
    for conv, kernel in zip(convs, kernels, strict=True):
        conv.weight = nn.Parameter(kernel)
    model = nn.Sequential(*convs)
    erf = effective_receptive_field(model, torch.rand(2, 1, 31, 31).double(), features=model)
    expected = np.ones((1, 1))
    for kernel in kernels:  # flipped, since torch correlates
        expected = convolve2d(expected, kernel[0, 0].numpy()[::-1, ::-1])
    h, w = expected.shape
    inner = erf.contribution[15 - h // 2 : 16 + h // 2, 15 - w // 2 : 16 + w // 2]
    np.testing.assert_allclose(inner[::-1, ::-1], expected, rtol=1e-12)
    assert erf.support == (h, w)


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet"])  # ResNet: in-place
def test_batch_and_recompute_do_not_change_the_result(name):
    model = timm.create_model(name).double()
    images = torch.randn(5, 3, 64, 64).double()
    expected = effective_receptive_field(model, images).contribution
    for options in ({"batch": 2}, {"batch": 8}, {"recompute": True}):
        erf = effective_receptive_field(model, images, **options)
        assert erf.images == 5
        np.testing.assert_allclose(erf.contribution, expected, rtol=1e-12, atol=1e-18)
    assert all("forward" not in vars(module) for module in model.modules())


def test_recompute_saves_memory():
    model = timm.create_model("test_convnext3", depths=(2, 6, 6, 2)).eval()
    image = torch.randn(1, 3, 96, 96)

    def peak(recompute):
        return peak_memory(lambda: effective_receptive_field(model, image, recompute=recompute))

    assert peak(True) < 0.5 * peak(False)


def test_deeper_layers_have_larger_fields():
    model = timm.create_model("test_convnext")
    images = torch.randn(2, 3, 96, 96)
    seen = [
        effective_receptive_field(model, images, layer=f"stages.{i}").side(0.99) for i in range(3)
    ]
    assert seen[0] < seen[1] < seen[2]
    with pytest.raises(InputError, match=r"unknown layer of ConvNeXt 'stages\.9'; did you mean st"):
        effective_receptive_field(model, images, layer="stages.9")
    with pytest.raises(InputError, match=r"\(N, C, h, w\), got shape \(1, 1000\)"):
        effective_receptive_field(model, images, layer="head.fc")


def test_images_with_nan_gradients_are_skipped():
    images = torch.randn(3, 4, 12, 12)
    images[1] = float("nan")
    model = nn.Sequential(nn.Softplus(), positive_conv((3, 3)))
    erf = effective_receptive_field(model, images, features=model)
    assert erf.images == 2
    assert np.isfinite(erf.contribution).all()


def test_bad_input():
    conv = positive_conv((3, 3))
    images = torch.randn(2, 4, 8, 8)
    with pytest.raises(InputError, match="Conv2d has no forward_features; pass features="):
        effective_receptive_field(conv, images)
    with pytest.raises(InputError, match=r"must be \(N, C, h, w\), got shape \(1, 64, 4\)"):
        effective_receptive_field(conv, images, features=lambda x: conv(x).flatten(2).mT)
    with pytest.raises(InputError, match="have no gradient with respect to the image"):
        effective_receptive_field(conv, images, features=lambda x: x.detach())
    with pytest.raises(InputError, match=r"images are \(C, H, W\) or .*, got shape \(4, 16000\)"):
        effective_receptive_field(conv, [torch.randn(4, 16000)], features=conv)
    with pytest.raises(InputError, match=r"the same size, got \(8, 8\) and \(9, 9\)"):
        effective_receptive_field(conv, [images[0], torch.randn(4, 9, 9)], features=conv)
    with pytest.raises(InputError, match=r"does not accept images of shape \(1, 3, 8, 8\): Given"):
        effective_receptive_field(conv, torch.randn(1, 3, 8, 8), features=conv)
    with pytest.raises(InputError, match="at least 1, got batch=0"):
        effective_receptive_field(conv, images, features=conv, batch=0)
    with pytest.raises(InputError, match="there are no images"):
        effective_receptive_field(conv, images[:0], features=conv)
    with pytest.raises(InputError, match=r"threshold .* got 1\.5"):
        ERF(np.ones((3, 3)), 1).side(1.5)


def test_figure_has_one_panel_per_model(tmp_path):
    erf = ERF(np.random.default_rng(0).random((32, 32)), images=1)
    one = draw_erf({"before": erf}, tmp_path / "one.png")
    two = draw_erf({"before": erf, "after": erf}, tmp_path / "two.png")
    assert imread(two).shape[1] > 1.8 * imread(one).shape[1]


def test_gamma_brightens_small_scores(tmp_path):
    """A bright center in a field of 0.01, which is black with gamma 1."""
    contribution = np.full((32, 32), 0.01)
    contribution[16, 16] = 1
    erf = ERF(contribution, images=1)
    seen, papers = (
        imread(draw_erf({"a": erf}, tmp_path / f"{gamma}.png", gamma=gamma)) for gamma in (0.5, 1)
    )
    corner = seen.shape[0] // 5, seen.shape[1] // 5  # inside the map, outside the squares
    assert seen[corner][:3].sum() > 2 * papers[corner][:3].sum()
