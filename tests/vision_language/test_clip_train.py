"""open_clip's program as the command line calls it, on coloured squares."""

import json
import os
import subprocess
import sys

import pytest
import torch

from seewide.errors import InputError
from seewide.vision_language.clip import towers
from seewide.vision_language.clip.model import load_clip
from seewide.vision_language.clip.recipes import ClipRecipe
from seewide.vision_language.clip.run import prepare_run, run_name
from seewide.vision_language.clip.shards import brace_pattern, write_sizes
from seewide.vision_language.clip.train import arguments, train

TINY = {
    "config": "clip_unireplknet_a",
    "image_size": 32,
    "text_width": 64,
    "embed_dim": 32,
    "context_length": 8,
    "vocabulary": 20,
    "epochs": 2,
    "batch_size": 8,
    "warmup_steps": 1,
    "precision": "fp32",
}


def call(*words, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "seewide", "clip", *map(str, words)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def run(squares, tmp_path_factory):
    """A run of two epochs by the command line."""
    out = tmp_path_factory.mktemp("run") / "clip"
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    call("train", "default", "--data", squares, "--out", out, "--workers", 0, *settings,
         "--device", "cpu")  # fmt: skip
    return out


def test_a_run_has_all_that_open_clip_needs(run):
    import open_clip

    log = (run / "open_clip" / "out.log").read_text()
    assert "Train Epoch: 1" in log
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{run}")
    assert model.visual.image_size == (32, 32)
    tokens = open_clip.get_tokenizer(f"local-dir:{run}")(["a red square"])
    assert tokens.shape == (1, 8)
    assert int(tokens.max()) == model.vocab_size - 1  # the end token is the highest


def test_retrieve_and_zeroshot(run, squares, classes, command, tmp_path):
    result = command("clip", "retrieve", run, "--data", squares, "--out", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert "6 images, 12 captions" in result.output
    assert json.loads((tmp_path / "r.json").read_text())["captions"] == 12
    result = command("clip", "zeroshot", run, "--data", classes, "--out", tmp_path / "z.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "z.json").read_text())
    assert found["images"] == 6
    assert found["acc1"] == pytest.approx(found["mean_per_class_recall"])


def test_weights_of_another_configuration(run):
    with pytest.raises(InputError, match=r"checkpoint of another configuration: .* others differ"):
        load_clip("clip_unireplknet_t", run / "open_clip_model.safetensors")
    with pytest.raises(InputError, match="is a configuration; --weights names its checkpoint"):
        load_clip("clip_unireplknet_t")


def test_weights_of_a_locked_tower_load(tmp_path):
    """Its frozen batch norms have no `num_batches_tracked`; the loaded model computes the same."""
    model = towers.create("clip_unireplknet_a")
    model.lock_image_tower(freeze_bn_stats=True)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "epoch_latest.pt")
    clip = load_clip("clip_unireplknet_a", tmp_path / "epoch_latest.pt")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = model.eval().encode_image(x)
        assert torch.allclose(clip.model.encode_image(x), want, atol=1e-5)


def test_a_run_is_not_overwritten(run, squares):
    with pytest.raises(InputError, match="has a run already; resume it"):
        prepare_run(ClipRecipe(**TINY), str(squares), run)


@pytest.mark.slow
def test_a_killed_run_resumes_after_its_last_epoch(squares, tmp_path):
    """After `kill -9` the finished epochs count, with the state of the optimizer."""
    out = tmp_path / "clip"
    settings = [w for k, v in {**TINY, "epochs": 400}.items() for w in ("--set", f"{k}={v}")]
    words = ["train", "default", "--data", squares, "--out", out, "--workers", 0, *settings]
    process = subprocess.Popen(
        [sys.executable, "-m", "seewide", "clip", *map(str, words), "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if "Train Epoch: 3" in line:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    recipe = json.loads((out / "recipe.json").read_text())
    (out / "recipe.json").write_text(json.dumps(recipe | {"epochs": 5}))
    call("train", "--resume", out, "--workers", 0, "--device", "cpu")
    log = (out / "open_clip" / "out.log").read_text()
    assert "resuming checkpoint" in log
    assert log.count("Start epoch 0") == 1
    assert log.count("Start epoch 4") >= 1


def test_several_processes_need_gpus(squares, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="open_clip trains several processes on GPUs only"):
        train(ClipRecipe(**TINY), str(squares), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_captions_that_are_cut_are_counted(squares, tmp_path):
    recipe = ClipRecipe(**{**TINY, "context_length": 3})
    facts = prepare_run(recipe, str(squares), tmp_path / "run")
    assert "24 of the first 24 captions have more than 3 tokens and are cut" in facts


def test_recipe_settings_reach_open_clip(tmp_path):
    from open_clip_train.params import parse_args

    recipe = ClipRecipe(
        lock_image=True, unlocked_groups=2, sigmoid_loss=True, grad_checkpointing=True,
        accumulate=2, clip_grad=0.5, min_crop=0.4, color_jitter=0.4, samples_per_epoch=7,
    )  # fmt: skip
    words = arguments(recipe, "a.tar", tmp_path, workers=1, seed=3, device="cpu")
    parsed = parse_args(words)
    assert parsed.lock_image
    assert parsed.lock_image_freeze_bn_stats
    assert parsed.lock_image_unlocked_groups == 2
    assert parsed.siglip
    assert parsed.grad_checkpointing
    assert (parsed.accum_freq, parsed.grad_clip_norm, parsed.seed) == (2, 0.5, 3)
    assert parsed.aug_cfg["scale"] == (0.4, 1.0)
    assert parsed.aug_cfg["color_jitter"] == (0.4, 0.4, 0.4, 0.1)
    assert (parsed.dataset_type, parsed.train_num_samples) == ("webdataset", 7)
    assert not set(run_name(tmp_path / "my-SigLIP-vit").split("-")) & {"siglip", "vit"}


def test_tar_files_get_their_sizes(tmp_path):
    import io
    import tarfile

    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for name in ("a.jpg", "a.txt", "b.jpg", "c.png", "c.txt", "d.txt"):
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    pattern = str(tmp_path / "*.tar")
    assert write_sizes(pattern) == (4, 2)
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"0.tar": 2, "1.tar": 2}
    assert brace_pattern(pattern) == f"{{{tmp_path}/0.tar,{tmp_path}/1.tar}}"
    with pytest.raises(InputError, match="there is no tar file"):
        write_sizes(str(tmp_path / "{0..2}.tar"))
    (tmp_path / "3.tar").write_bytes(b"no archive")
    with pytest.raises(InputError, match="is no tar file"):
        write_sizes(str(tmp_path / "3.tar"))


def test_wrong_command_lines(command, squares):
    for words, sentence in (
        (["train", "laptopp", "--data", squares], "did you mean laptop"),
        (["train", "laptop"], "--data is required"),
        (["train", "laptop", "--data", squares, "--set", "lr"], "--set must be KEY=VALUE"),
        (["train", "laptop", "--data", squares], "an epoch needs one batch"),
        (["retrieve", squares, "--data", squares], "is no CLIP run"),
        (["trian"], "unknown command of seewide clip 'trian'; did you mean train"),
    ):
        result = command("clip", *words)
        assert result.exit_code == 2, result.output
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_clip_benchmark_takes_a_run(run, classes, tmp_path):
    """Its documented command, on a local webdataset, gives the accuracy of `zeroshot`."""
    pytest.importorskip("clip_benchmark")
    import tarfile

    root = tmp_path / "squares"
    (root / "test").mkdir(parents=True)
    names = sorted(folder.name for folder in (classes / "val").iterdir())
    with tarfile.open(root / "test" / "0.tar", "w") as archive:
        for label, name in enumerate(names):
            for number in range(2):
                archive.add(classes / "val" / name / f"{number}.png", f"{label}{number}.png")
                (tmp_path / "label.cls").write_text(str(label))
                archive.add(tmp_path / "label.cls", f"{label}{number}.cls")
    (root / "test" / "nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("\n".join(names))
    (root / "zeroshot_classification_templates.txt").write_text("a {c} square")
    words = ["benchmark", "eval", "--model", f"local-dir:{run}", "--pretrained", "",
             "--dataset", "wds/squares", "--dataset_root", root, "--no_amp", "--num_workers", 0,
             "--output", tmp_path / "r.json"]  # fmt: skip
    call(*words)
    (tmp_path / "templates.txt").write_text("a {c} square")
    call("zeroshot", run, "--data", classes, "--templates", tmp_path / "templates.txt",
         "--out", tmp_path / "z.json", "--device", "cpu")  # fmt: skip
    theirs = json.loads((tmp_path / "r.json").read_text())["metrics"]
    ours = json.loads((tmp_path / "z.json").read_text())
    assert 100 * theirs["acc1"] == pytest.approx(ours["acc1"])
    assert 100 * theirs["mean_per_class_recall"] == pytest.approx(ours["mean_per_class_recall"])
