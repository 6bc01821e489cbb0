"""Audio classification: layouts on disk, damaged recordings, training, resuming, prediction."""

import csv
import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from task_runs import (
    QUIET,
    TINY,
    assert_a_killed_run_resumes_to_the_same_bits,
    assert_two_processes_learn_what_one_does,
    train,
)

from seewide.data.audio import describe_audio, open_audio
from seewide.data.waves import read_wave
from seewide.errors import InputError
from seewide.recipes import get
from seewide.tasks import guess_task
from seewide.tasks.audio import Audio, AudioOptions, MultiLabelMetric
from seewide.train import Predictor, evaluate, fit

RATE = 8000
PITCHES = {"high": 2000.0, "low": 400.0, "middle": 900.0}


def write_wave(path: Path, samples: np.ndarray, rate: int = RATE, width: int = 2) -> Path:
    """PCM of one or more channels, (n,) or (n, channels) in [-1, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = samples.reshape(len(samples), *samples.shape[1:] or (1,))
    whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        whole = whole + 128
    content = whole.astype("<i8").tobytes()
    content = b"".join(content[i : i + width] for i in range(0, len(content), 8))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)
    return path


def tone(hertz: float, seed: int, samples: int = 2000) -> np.ndarray:
    random = np.random.default_rng(seed)
    t = np.arange(samples + random.integers(0, 800)) / RATE
    pitch = hertz * random.uniform(0.9, 1.1)
    return 0.5 * np.sin(2 * np.pi * pitch * t) + 0.05 * random.standard_normal(len(t))


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Three classes of pitch, eight recordings each."""
    folder = tmp_path_factory.mktemp("tones")
    for name, hertz in PITCHES.items():
        for i in range(8):
            write_wave(folder / name / f"{i}.wav", tone(hertz, i))
    return folder


RECIPE = replace(
    get("small_audio"),
    options={"mel_bins": 32, "frames": 32, "freq_mask": 4, "time_mask": 4, "noise": 0.05,
             "roll": 2, "speed": 0.05, "gain": 3.0, "mixup": 0.3},
    epochs=2,
    batch_size=8,
    device_batch=4,
    drop_path=0.1,
    lr=4e-3,
    **TINY,
)  # fmt: skip


def test_folder_per_class(tones):
    assert describe_audio(str(tones)) == "3 folders of recordings"
    assert guess_task(str(tones)) == ("audio", "3 folders of recordings")
    found = open_audio(tones)
    assert found.class_names == ("high", "low", "middle")
    assert (len(found.train), len(found.val), found.sample_rate) == (18, 6, RATE)
    sample = found.train[0]
    assert sample["waveform"].dtype == np.float32
    assert sample["label"] == 0


def test_train_and_test_folders(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for name, hertz in PITCHES.items():
            for i in range(count):
                write_wave(tmp_path / part / name / f"{i}.wav", tone(hertz, i))
    found = open_audio(tmp_path)
    assert (len(found.train), len(found.val)) == (9, 6)


def test_speech_commands(tmp_path):
    for name in ("no", "yes", "_background_noise_"):
        for i in range(4):
            write_wave(tmp_path / name / f"speaker{i}_nohash_0.wav", tone(400, i))
    (tmp_path / "validation_list.txt").write_text("yes/speaker1_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/speaker0_nohash_0.wav\n")
    assert describe_audio(str(tmp_path)) == "Speech Commands"
    found = open_audio(tmp_path)
    assert found.class_names == ("no", "yes")
    assert list(found.val.names()) == ["yes/speaker1_nohash_0.wav"]
    assert len(found.train) == 6
    assert "no/speaker0_nohash_0.wav" not in list(found.train.names())


def test_esc50(tmp_path):
    rows = [("a.wav", 1, 0, "dog"), ("b.wav", 2, 3, "rain"), ("c.wav", 5, 3, "rain")]
    for name, *_ in rows:
        write_wave(tmp_path / "audio" / name, tone(500, 0))
    (tmp_path / "meta").mkdir()
    with open(tmp_path / "meta" / "esc50.csv", "w", newline="") as file:
        csv.writer(file).writerows([("filename", "fold", "target", "category"), *rows])
    found = open_audio(tmp_path)
    assert found.class_names == ("dog", "rain")
    assert [s["label"] for s in found.train] == [0, 1]
    assert [s["label"] for s in found.val] == [1]
    with pytest.raises(InputError, match=r"the folds \[1, 2, 5\], got fold 4"):
        open_audio(tmp_path, fold=4)


def audioset(folder: Path) -> None:
    (folder / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/a,Music\n1,/m/b,"Speech, male"\n2,/m/c,Dog\n'
    )


def test_audioset_segment_lists(tmp_path):
    audioset(tmp_path)
    for name in ("train/Yab_-1.wav", "train/cd.wav", "eval/ef.wav"):
        write_wave(tmp_path / name, tone(500, 0))
    head = "# Segments csv\n# num\n# YTID, start_seconds, end_seconds, positive_labels\n"
    (tmp_path / "balanced_train_segments.csv").write_text(
        head + 'ab_-1, 0.0, 10.0, "/m/a,/m/c"\ncd, 0.0, 10.0, "/m/b"\ngone, 0.0, 10.0, "/m/b"\n'
    )
    (tmp_path / "eval_segments.csv").write_text(head + 'ef, 0.0, 10.0, "/m/a"\n')
    found = open_audio(tmp_path)
    assert found.multi_label
    assert found.class_names[1] == "Speech, male"
    assert [s["label"].tolist() for s in found.train] == [[1, 0, 1], [0, 1, 0]]
    assert [s["label"].tolist() for s in found.val] == [[1, 0, 0]]


def test_ast_lists_and_multi_label_training(tmp_path):
    audioset(tmp_path)
    entries = []
    for i in range(12):
        write_wave(tmp_path / f"{i}.wav", tone((400, 2000)[i % 2], i))
        entries.append({"wav": f"{i}.wav", "labels": "/m/a" if i % 2 else "/m/b,/m/c"})
    (tmp_path / "train.json").write_text(json.dumps({"data": entries[:8]}))
    (tmp_path / "eval.json").write_text(json.dumps({"data": entries[8:]}))
    result = train(tmp_path, tmp_path / "run", replace(RECIPE, epochs=1))
    assert {"map", "auc", "dprime", "top1"} <= result.scores.keys()
    (tmp_path / "eval.json").write_text('{"data": [{"wav": "1.wav"}]}')
    with pytest.raises(InputError, match="is not a list of recordings"):
        open_audio(tmp_path)


def test_average_precision_and_auc_equal_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, truth = torch.randn(60, 5), (torch.rand(60, 5) < 0.3).float()
    truth[:, 4] = 0  # a class that does not occur is left out
    metric = MultiLabelMetric()
    metric.update(logits[:30], {"label": truth[:30]})
    other = MultiLabelMetric()
    other.update(logits[30:], {"label": truth[30:]})
    metric.merge([other])
    got = metric.compute()
    ap = sklearn.average_precision_score(truth[:, :4], logits[:, :4], average="macro")
    auc = sklearn.roc_auc_score(truth[:, :4], logits[:, :4], average="macro")
    assert got["map"] == pytest.approx(100 * ap)
    assert got["auc"] == pytest.approx(100 * auc)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sample_widths_and_channels(tmp_path, width):
    samples = np.stack([tone(400, 0), np.zeros_like(tone(400, 0))], 1)
    got, rate = read_wave(write_wave(tmp_path / "stereo.wav", samples, width=width))
    assert rate == RATE
    assert np.abs(got - samples.mean(1)).max() < 2.0 ** (1 - 8 * width) + 1e-6


def test_floats_and_flac(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    samples = tone(400, 0).astype(np.float32)
    soundfile.write(tmp_path / "float.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "lossless.flac", samples, RATE)
    assert np.array_equal(read_wave(tmp_path / "float.wav")[0], samples)
    assert np.abs(read_wave(tmp_path / "lossless.flac")[0] - samples).max() < 1e-4
    samples[7] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan.wav holds samples that are NaN"):
        read_wave(tmp_path / "nan.wav")


def test_damaged_recordings_are_one_sentence(tmp_path):
    path = write_wave(tmp_path / "good.wav", tone(400, 0))
    (tmp_path / "cut.wav").write_bytes(path.read_bytes()[:1000])
    (tmp_path / "text.wav").write_text("not a recording")
    write_wave(tmp_path / "empty.wav", np.zeros(0))
    write_wave(tmp_path / "silent.wav", np.zeros(500))
    for name, sentence in {
        "cut.wav": "cut.wav is truncated: 956 of",
        "text.wav": "text.wav cannot be read as a recording",
        "empty.wav": "empty.wav is empty",
        "silent.wav": "silent.wav is silent: all its 500 samples",
        "gone.wav": "there is no recording",
    }.items():
        with pytest.raises(InputError, match=sentence):
            read_wave(tmp_path / name)


def test_mixed_sample_rates_are_refused(tones, tmp_path):
    for name in ("a", "b"):
        write_wave(tmp_path / name / "1.wav", tone(400, 1))
    write_wave(tmp_path / "b" / "2.wav", tone(400, 1), rate=16000)
    with pytest.raises(InputError, match=r"8000 Hz \(1.wav\) and 16000 Hz \(2.wav\)"):
        open_audio(tmp_path)
    samples = open_audio(tones).train
    base = samples.base
    base.rate = 44100
    with pytest.raises(InputError, match="a sample rate of 8000 Hz, the others of 44100 Hz"):
        samples[0]


@pytest.mark.parametrize("name", ["", "images"])
def test_folders_without_recordings(tmp_path, name):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "a.jpg").write_bytes(b"")
    assert describe_audio(str(tmp_path / name)) is None
    with pytest.raises(InputError, match=r"audio data is|has no two folders"):
        open_audio(tmp_path / name)


def test_pitches_are_learned_and_predicted(tones, tmp_path):
    recipe = replace(RECIPE, epochs=12, drop_path=0.0)
    result = train(tones, tmp_path / "run", recipe)
    assert result.scores["top1"] >= 80
    judged = evaluate(str(tmp_path / "run"), str(tones))
    assert judged.deviation < 1e-3
    assert judged.models[1].scores["top1"] == result.scores["top1"]
    predictor = Predictor(tmp_path / "run", device="cpu")
    path = write_wave(tmp_path / "new.wav", tone(2000, 50))
    (prediction,) = predictor(path)
    assert prediction.description["classes"][0]["name"] == "high"
    figure = predictor.task.draw(prediction.sample, prediction.description)
    figure.savefig(tmp_path / "figure.png")
    (silent,) = predictor(write_wave(tmp_path / "silent.wav", np.zeros(900)))
    assert "is silent" in silent.error
    (faster,) = predictor(write_wave(tmp_path / "fast.wav", tone(2000, 50), rate=16000))
    assert "sample rate of 16000 Hz, the model was trained on recordings of 8000" in faster.error


def test_a_killed_run_resumes_to_the_same_bits(tones, tmp_path):
    assert_a_killed_run_resumes_to_the_same_bits(tones, tmp_path, RECIPE, 7)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tones, tmp_path):
    options = {"mel_bins": 32, "frames": 32}
    recipe = replace(RECIPE, options=options, drop_path=0.0, ema_decay=0.0)
    assert_two_processes_learn_what_one_does(tones, tmp_path, recipe)


def test_bf16_and_workers_train_too(tones, tmp_path):
    result = fit(
        None, tones, replace(RECIPE, epochs=1), tmp_path / "run", task="audio", console=QUIET,
        workers=2, amp="bf16",
    )  # fmt: skip
    assert np.isfinite(result.scores["loss"])


def test_statistics_are_measured_on_the_training_recordings(tones):
    facts = Audio(AudioOptions(mel_bins=32, frames=32)).open(str(tones)).facts
    assert -20 < facts["mean"] < 5
    assert facts["std"] > 0.5
    fixed = Audio(AudioOptions(mean=-6.0, std=5.0)).open(str(tones)).facts
    assert (fixed["mean"], fixed["std"]) == (-6.0, 5.0)
