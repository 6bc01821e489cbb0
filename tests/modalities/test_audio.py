"""Log-mel maps, their augmentation and the audio classifier."""

import pytest
import timm
import torch
from modality_figures import Figures, assert_features, normal, wave

import seewide
from seewide.errors import InputError
from seewide.modalities import AudioClassifier, LogMel, NoiseAndRoll, SpecAugment, mix_waves
from seewide.modalities.log_mel import STATISTICS, mel_filter_bank
from seewide.testing import deviation


def assert_log_mel(got, want):
    """The bounds of the figures: quiet bins of a float32 Fourier transform are noisy."""
    difference = (got - want).abs()
    assert difference.max() < 5e-3
    assert difference.flatten().kthvalue(int(0.999 * difference.numel())).values < 5e-4


@pytest.mark.parametrize("case", [0, 1, 2])
def test_log_mel_equals_kaldi(case):
    figures = Figures("audio_fbank")
    if f"raw{case}" not in figures:
        pytest.skip("the authors' figures of this case are not on this machine")
    samples, rate, bins = [(16000, 16000, 128), (8000, 8000, 64), (40000, 16000, 128)][case]
    x = wave(samples, rate, seed=case)
    log_mel = LogMel(rate, bins).log_mel(x - x.mean())
    assert_log_mel(log_mel[0], figures[f"raw{case}"])


def test_padded_and_normalised_map_equals_the_authors():
    figures = Figures("audio_fbank")
    got = LogMel(padding="zero")(wave(16000, 16000, seed=0))
    assert got.shape == (1, 1, 128, 128)
    assert_log_mel(got[0, 0].T, figures["normalised0"])
    time_first = LogMel(padding="zero", frequency_first=False)(wave(16000, 16000, seed=0))
    assert torch.equal(time_first, got.transpose(2, 3))


def test_log_mel_equals_torchaudio_on_speech(shared_data):
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    wavs = sorted((shared_data / "audio" / "fsdd" / "test").glob("*/*_0.wav"))
    import soundfile

    for path in wavs[:20]:
        samples, rate = soundfile.read(path, dtype="float32")
        x = torch.from_numpy(samples)[None]
        x = x - x.mean()
        want = kaldi.fbank(
            x, htk_compat=True, sample_frequency=rate, use_energy=False, window_type="hanning",
            num_mel_bins=64, dither=0.0, frame_shift=10,
        )  # fmt: skip
        assert (LogMel(rate, 64).log_mel(x)[0] - want).abs().max() < 1e-4


def test_filters_are_triangles_over_neighbouring_centres():
    filters = mel_filter_bank(16000, 40, 512)
    assert filters.shape == (40, 257)
    assert filters[:, -1].eq(0).all()
    total = filters.sum(0)[10:200]
    assert (total - 1).abs().max() < 1e-5  # falling and rising sides add up to 1


def test_a_tone_excites_the_bin_of_its_pitch():
    rate, bins = 16000, 64
    t = torch.arange(rate) / rate
    frontend = LogMel(rate, bins)
    centres = [(frontend.filters * torch.arange(257)).sum(1) / frontend.filters.sum(1)][0]
    for hertz in (500.0, 1500.0, 4000.0):
        loudest = frontend.log_mel(torch.sin(2 * torch.pi * hertz * t)[None])[0, 50].argmax()
        assert abs(centres[loudest] * rate / 512 - hertz) < 0.1 * hertz


def test_padding_in_a_batch_changes_nothing():
    """A short waveform gives the same map alone and padded beside a longer one."""
    for padding in ("mean", "zero"):
        frontend = LogMel(8000, 64, 64, padding=padding)
        short, long = torch.randn(3000) + 1, torch.randn(5000)
        batch = torch.stack([torch.nn.functional.pad(short, (0, 2000)), long])
        got = frontend(batch, torch.tensor([3000, 5000]))
        assert deviation(got[:1], frontend(short[None])) < 1e-4
        assert deviation(got[1:], frontend(long[None])) < 1e-4
        filled = got[0, 0, :, frontend.frames_of(3000) :]
        assert filled.unique().tolist() == pytest.approx([frontend.fill])
    assert LogMel(padding="zero").fill == pytest.approx(0.615, abs=1e-3)


def test_a_waveform_shorter_than_a_frame_is_padding():
    frontend = LogMel(8000, 32, 16)
    got = frontend(torch.randn(2, 100), torch.tensor([100, 0]))
    assert got.eq(0).all()
    with pytest.raises(InputError, match=r"at least 200 samples .* got shape \(2, 100\)"):
        frontend.log_mel(torch.randn(2, 100))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"padding": "loud"}, "unknown padding 'loud'"),
        ({"mel_bins": 0}, "must be positive, got sample_rate=16000, mel_bins=0"),
        ({"sample_rate": 10}, "at least 100 Hz, got sample_rate=10"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        LogMel(**arguments)


def test_spec_augment_masks_one_band_and_one_span():
    augment = SpecAugment(20, 30, fill=7.0)
    x = torch.zeros(50, 1, 64, 96)
    masked = augment(x)[:, 0] == 7.0
    bins, frames = masked.all(2), masked.all(1)
    assert torch.equal(masked, bins[:, :, None] | frames[:, None, :])
    for marks, limit in ((bins, 20), (frames, 30)):
        edges = (marks.int().diff(dim=1) != 0).sum(1)
        assert edges.max() <= 2
        assert marks.sum(1).max() < limit
        assert marks.sum(1).float().mean() == pytest.approx(limit / 2 - 0.5, rel=0.3)
    assert torch.equal(augment.eval()(x), x)


def test_noise_is_bounded_and_the_roll_is_in_time():
    x = torch.arange(32.0).expand(40, 1, 4, 32)
    augmented = NoiseAndRoll(strength=0.0, shift=10)(x)
    shifts = augmented[:, 0, 0, 0]
    assert set((-shifts % 32).tolist()) <= {*range(10), *range(22, 32)}
    assert shifts.unique().numel() > 5
    assert torch.equal(augmented.sort(3).values, x)
    noisy = NoiseAndRoll(strength=0.1, shift=0)(torch.zeros(8, 1, 16, 16))
    assert noisy.min() >= 0
    assert noisy.max() <= 0.1
    assert noisy.amax((1, 2, 3)).std() > 0


def test_mixed_waves_have_no_mean_and_the_length_of_the_first():
    first, second = torch.randn(100) + 3, torch.randn(60) - 2
    mixed = mix_waves(first, second, 0.25)
    assert mixed.shape == (100,)
    assert mixed.mean().abs() < 1e-6
    tail = mixed[60:] - 0.25 * first[60:]
    assert tail.std() < 1e-6
    assert torch.allclose(mix_waves(first, torch.randn(140), 1.0), first - first.mean())


@pytest.mark.parametrize("case", ["audio_a", "audio_s"])
@pytest.mark.parametrize("head", ["extra_norm", "extra_norm_only"])
def test_classifier_equals_the_authors(case, head):
    figures = Figures(case)
    dims, depths = tuple(figures.what["dims"]), tuple(figures.what["depths"])
    name = "unireplknet_a" if case == "audio_a" else "unireplknet_s"
    backbone = timm.create_model(name, in_chans=1, dims=dims, depths=depths)
    model = AudioClassifier(backbone, figures.what["classes"], head=head)
    seewide.load_checkpoint(model, figures.weights())
    batch = 2 if case == "audio_a" else 1
    features = normal(batch, 128, 128, seed=0 if case == "audio_a" else 1)
    map_B1MT = features.unsqueeze(1).transpose(2, 3)
    reading = {"extra_norm": "final_norm", "extra_norm_only": "no_final_norm"}[head]
    fused = seewide.fuse(model)
    for each in (model.eval(), fused):
        with torch.no_grad():
            stages = each.backbone.forward_intermediates(map_B1MT)[1]
            pooled, logits = each.backbone(map_B1MT), each.classify(map_B1MT)
        if "feat0_shape" in figures:
            assert_features(figures, stages, 1e-4)
        assert deviation(pooled, figures[f"pooled_{reading}"]) < 1e-4
        assert deviation(logits, figures[f"logits_{reading}"]) < 1e-4


def test_classifier_of_waveforms_fuses_and_trains():
    backbone = timm.create_model("unireplknet_a", in_chans=1, dims=(8, 12, 16, 20))
    frontend = LogMel(8000, 32, 32, *STATISTICS["esc50"])
    model = AudioClassifier(backbone, 7, frontend, augment=SpecAugment(8, 8))
    assert not any(key.startswith("frontend") for key in model.state_dict())
    loss = model(torch.randn(3, 2600), torch.tensor([2600, 2000, 100])).square().sum()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    fused = seewide.fuse(model)
    x = torch.randn(2, 2600)
    with torch.no_grad():
        assert deviation(fused(x), model.eval()(x)) < 1e-4
    with pytest.raises(InputError, match="unknown head 'extra'"):
        AudioClassifier(backbone, 7, head="extra")
