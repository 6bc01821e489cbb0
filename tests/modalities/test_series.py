"""Series as maps, the Corrformer decoder and the forecaster."""

import pytest
import timm
import torch
from modality_figures import Figures, normal, series, stations

import seewide
from seewide.errors import InputError
from seewide.modalities import Forecaster, SeriesToMap
from seewide.modalities import corrformer as parts
from seewide.modalities.series import standardize_places
from seewide.testing import deviation

CASES = ["series_small", "series_small_pooled"]
CASES += [
    pytest.param(f"series_official_{reading}", marks=pytest.mark.slow)
    for reading in ("map", "pooled")
]


def forecaster(figures):
    """The model of a case, with the authors' weights."""
    config, network = figures.what["config"], figures.what["backbone"]
    if isinstance(network, dict):
        sizes = {key: tuple(value) for key, value in network.items()}
        kernels = (3, 13, 13, 13)
        backbone = timm.create_model("unireplknet_a", in_chans=1, kernel_sizes=kernels, **sizes)
    else:
        kernels = (3, 13, (13, 3, 3), 11)
        backbone = timm.create_model("unireplknet_s", in_chans=1, kernel_sizes=kernels)
    pooled = figures.what["reading"].startswith("encoder output = final norm")
    model = Forecaster(
        backbone,
        config["seq_len"],
        config["pred_len"],
        config["enc_in"],
        config["node_list"],
        config["d_model"],
        "corrformer",
        "reshaped_pooled" if pooled else "reshaped_map",
        config["n_heads"],
        config["d_ff"],
        config["moving_avg"],
        config["d_layers"],
        config["label_len"],
        places=True,
        dropout=config["dropout"],
    )
    return seewide.load_checkpoint(model, figures.weights()).eval()


def hook(module, store, name):
    module.register_forward_hook(lambda m, inputs, output: store.__setitem__(name, output))


@pytest.mark.parametrize("name", CASES)
def test_forecast_equals_the_authors(name):
    figures = Figures(name)
    model, config = forecaster(figures), figures.what["config"]
    text = figures.what["input"]
    steps, columns = map(int, text.split("series(")[1].split(", seed")[0].split(","))
    seed = int(text.split("seed=")[1].split(")")[0])
    x = series(steps, columns, seed)
    places = standardize_places(stations(columns, seed))
    seen = {}
    for key, module in {
        "enc_embedding_sample": model.enc_embedding,
        "image_sample": model.to_map,
        "encoder_out": model.backbone,
        "dec_embedding_sample": model.dec_embedding,
        "self_corr_sample": model.decoder.layers[0].multi_correlation,
        "cross_corr_sample": model.decoder.layers[0].cross_multi_correlation,
        "parts": model.decoder,
    }.items():
        hook(module, seen, key)
    L = config["seq_len"]
    forecast = model(x[:, :L], figures["marks"][None], places)
    seen["seasonal_part"], seen["trend_part"] = seen.pop("parts")
    step = figures.what["sample_stride"]
    limits = {"enc_embedding_sample": 1e-5, "image_sample": 1e-5, "dec_embedding_sample": 1e-5}
    for key, got in seen.items():
        if key not in figures:
            continue
        want = figures[key]
        if key == "image_sample":
            side = got.shape[-1] // want.shape[-1]
            got = got[:, :, ::side, ::side]
        elif got.shape[-1] != want.shape[-1]:
            got = got[..., ::step]
        elif got.shape != want.shape:
            got = got[:, :: got.shape[1] // want.shape[1]]
        found = deviation(got, want)
        assert found < limits.get(key, 1e-4), f"{key} deviates by {found:.1e}"
    assert deviation(forecast, figures["forecast"]) < 1e-4
    if "loss" in figures:
        dy = normal(*forecast.shape, seed=99 + seed) / forecast.numel() ** 0.5
        loss = (forecast * dy).sum()
        assert deviation(loss, figures["loss"]) < 1e-3
        loss.backward()
        gradients = dict(model.named_parameters())
        prefix = "encoder."
        network = {k.removeprefix(prefix): v for k, v in figures.named("gradnorm.").items()}
        ours = seewide.modalities.series.checkpoint_filter_fn(
            {f"{prefix}{k}" if _network(k) else k: v for k, v in network.items()}, model
        )
        assert len(ours) > 20
        # A shift of a query or key changes no correlation's maximum: where the exact gradient is
        # zero, both sides hold rounding, here below 2e-5 beside norms of up to hundreds.
        for key, want in ours.items():
            difference = (gradients[key].grad.norm() - want).abs()
            assert difference < 1e-3 * want + 2e-5, f"{key}: {difference:.1e} beside {want:.1e}"


def _network(key):
    return key.startswith(("stages.", "downsample_layers.", "norm.", "head."))


def test_square_maps_are_the_memory_row_by_row():
    x = torch.arange(2.0 * 4 * 9).reshape(2, 4, 9)
    image = SeriesToMap()(x)
    assert image.shape == (2, 1, 6, 6)
    assert torch.equal(image.flatten(), x.flatten())
    with pytest.raises(InputError, match=r"5 x 9 = 45; choose a width such as 5"):
        SeriesToMap()(torch.zeros(1, 5, 9))
    padded = SeriesToMap(pad=True)(torch.ones(1, 5, 9))
    assert padded.shape == (1, 1, 7, 7)
    assert padded.sum() == 45


def test_decomposition_adds_up_and_averages():
    x = torch.randn(2, 20, 3)
    seasonal, trend = parts.decompose(x, 5)
    assert torch.allclose(seasonal + trend, x, atol=1e-6)
    assert torch.allclose(trend[:, 10], x[:, 8:13].mean(1), atol=1e-6)
    assert torch.allclose(trend[:, 0], (3 * x[:, 0] + x[:, 1] + x[:, 2]) / 5, atol=1e-6)


def test_correlation_finds_the_lag_and_rolling_undoes_it():
    x = torch.randn(3, 24, dtype=torch.float64)
    lag = torch.tensor([0, 5, 17])
    shifted = torch.stack([row.roll(int(n)) for row, n in zip(x, lag, strict=True)])
    correlation = parts.lag_correlation(shifted, x)
    loops = torch.stack([(shifted.roll(-n, 1) * x).sum(1) for n in range(24)], 1)
    assert torch.allclose(correlation, loops)
    assert torch.equal(correlation.argmax(1), lag)
    assert torch.equal(parts.roll_by(shifted, lag), x)


def test_causal_convolutions_see_no_later_sibling():
    block = parts.CausalBlock(6, 0.0).double()
    x = torch.randn(1, 6, 9, dtype=torch.float64, requires_grad=True)
    block(x)[0, :, 4].sum().backward()
    assert x.grad[0, :, 5:].eq(0).all()
    assert x.grad[0, :, 4].ne(0).any()


def small(**options):
    backbone = timm.create_model("unireplknet_a", in_chans=1, dims=(8, 12, 16, 20))
    sizes = {"steps": 16, "horizon": 8, "columns": 3, "nodes": (2, 2), "dim": 64, "heads": 4}
    return Forecaster(backbone, **{**sizes, "hidden": 32, "window": 5, **options})


@pytest.mark.parametrize(
    "options", [{}, {"skip": False}, {"decoder": "corrformer"}], ids=["linear", "no skip", "corr"]
)
def test_forecasters_train_and_fuse(options):
    model = small(**options)
    x, marks = torch.randn(2, 16, 12), torch.rand(2, 24, 4) - 0.5
    y = model(x, marks)
    assert y.shape == (2, 8, 12)
    y.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    fused = seewide.fuse(model)
    with torch.no_grad():
        assert deviation(fused(x, marks), model.eval()(x, marks)) < 1e-4


def test_scale_and_offset_of_a_series_pass_through():
    model = small().eval()
    x = torch.randn(1, 16, 12, dtype=torch.float64)
    model = model.double()
    with torch.no_grad():
        y = model(x)
        scaled = model(100 * x + 7)
    assert torch.allclose(scaled, 100 * y + 7, rtol=1e-3, atol=1e-2)
    constant = torch.full((1, 16, 12), 5.0, dtype=torch.float64)
    assert model(constant).isfinite().all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dim": 60}, r"got 16 x 60 = 960"),
        ({"decoder": "mlp"}, "unknown decoder 'mlp'"),
        ({"reading": "raw"}, "unknown reading 'raw'"),
        ({"decoder": "corrformer", "heads": 5}, "multiple of heads, got dim=64 and heads=5"),
    ],
)
def test_bad_arguments_are_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        small(**options)
    with pytest.raises(InputError, match=r"\(B, 16, 12\) for 4 nodes of 3 columns, got shape"):
        small()(torch.zeros(1, 16, 11))
