"""Point-cloud classification: layouts on disk, damaged clouds, training, prediction."""

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
)

from seewide.data.points import check_cloud, describe_points, open_points, read_cloud
from seewide.errors import InputError
from seewide.recipes import get
from seewide.tasks import guess_task
from seewide.tasks.points import CloudMetric, Points, PointsOptions
from seewide.train import Predictor, evaluate, fit


def cloud(kind: int, seed: int, count: int = 64) -> np.ndarray:
    """A ball, a disk or a rod."""
    random = np.random.default_rng(seed)
    stretch = [(1, 1, 1), (1, 1, 0.05), (0.1, 0.1, 1)][kind]
    return (random.normal(size=(count, 3)) * stretch).astype(np.float32)


def write_npz(folder: Path, per_class: int = 6) -> Path:
    for seed, part in enumerate(("train", "test")):
        labels = np.repeat(np.arange(3), per_class)
        clouds = [cloud(label, 100 * seed + i) for i, label in enumerate(labels)]
        names = np.array(["ball", "disk", "rod"])
        np.savez(folder / f"{part}.npz", points=np.stack(clouds), labels=labels, class_names=names)
    return folder


RECIPE = replace(
    get("small_points"),
    options={"projection": "depth", "side": 32, "rotate": "up", "label_smoothing": 0.0},
    epochs=6,
    batch_size=9,
    lr=4e-3,
    **TINY,
)


def test_arrays(tmp_path):
    write_npz(tmp_path)
    assert guess_task(str(tmp_path)) == ("points", "arrays of point clouds")
    found = open_points(tmp_path)
    assert found.class_names == ("ball", "disk", "rod")
    assert (len(found.train), len(found.val)) == (18, 18)
    assert found.train[0]["points"].shape == (64, 3)


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    for name, count in (("ply_data_train0", 4), ("ply_data_train1", 2), ("ply_data_test0", 2)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["data"] = np.stack([cloud(i % 2, i) for i in range(count)])
            file["label"] = (np.arange(count) % 2)[:, None]
    found = open_points(tmp_path)
    assert (len(found.train), len(found.val)) == (6, 2)
    assert found.train.labels.tolist() == [0, 1, 0, 1, 0, 1]


OFF = "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n4 0 1 2 3\n"


def test_folders_with_splits_above_or_below_the_classes(tmp_path):
    for layout in ("{part}/{name}", "{name}/{part}"):
        folder = tmp_path / layout[1]
        for part, count in (("train", 3), ("test", 2)):
            for name in ("cone", "cube"):
                place = folder / layout.format(part=part, name=name)
                place.mkdir(parents=True)
                for i in range(count):
                    (place / f"{i}.off").write_text(OFF)
        found = open_points(folder)
        assert found.class_names == ("cone", "cube")
        assert (len(found.train), len(found.val)) == (6, 4)
        assert describe_points(str(folder)) is not None


def test_modelnet_lists(tmp_path):
    for name in ("cone", "cube"):
        (tmp_path / name).mkdir()
        for i in range(3):
            rows = [",".join(f"{v:.4f}" for v in (*row, 0, 0, 1)) for row in cloud(0, i, 8)]
            (tmp_path / name / f"{name}_{i}.txt").write_text("\n".join(rows))
    (tmp_path / "modelnet40_train.txt").write_text("cone_0\ncone_1\ncube_0\ncube_1\n")
    (tmp_path / "modelnet40_test.txt").write_text("cone_2\ncube_2\n")
    found = open_points(tmp_path)
    assert (len(found.train), len(found.val)) == (4, 2)
    assert found.train[0]["points"].shape == (8, 3)


def test_meshes_give_points_of_their_surface(tmp_path):
    (tmp_path / "a.off").write_text(OFF.replace("OFF\n", "OFF"))  # as some files of ModelNet40
    points = read_cloud(tmp_path / "a.off")
    assert points.shape == (2048, 3)
    assert np.array_equal(points, read_cloud(tmp_path / "a.off"))
    assert points.min() >= 0
    assert points.sum(1).max() < 1 + 1e-5


def test_damaged_clouds_are_one_sentence(tmp_path):
    good = cloud(0, 0)
    bad = good.copy()
    bad[3, 1] = np.nan
    with pytest.raises(InputError, match="x has coordinates that are NaN"):
        check_cloud(bad, "x")
    with pytest.raises(InputError, match="x has 5 points, which are all equal"):
        check_cloud(np.ones((5, 3), np.float32), "x")
    with pytest.raises(InputError, match=r"no cloud of points \(P, 3\), its shape is \(4,\)"):
        check_cloud(np.ones(4), "x")
    (tmp_path / "a.dat").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"a.dat is a pickle, which could run code"):
        read_cloud(tmp_path / "a.dat")
    (tmp_path / "one").mkdir()
    with pytest.raises(InputError, match=r"a.dat is a pickle"):
        open_points(tmp_path)
    np.save(tmp_path / "o.npy", np.array({"xyz": good}), allow_pickle=True)
    with pytest.raises(InputError, match="pickled objects, which could run code"):
        read_cloud(tmp_path / "o.npy")
    (tmp_path / "cut.off").write_text(OFF[:30])
    with pytest.raises(InputError, match=r"cut.off is a damaged OFF file"):
        read_cloud(tmp_path / "cut.off")
    (tmp_path / "t.txt").write_text("1 2 three\n")
    with pytest.raises(InputError, match=r"t.txt is no list of coordinates"):
        read_cloud(tmp_path / "t.txt")


def test_few_points_are_one_sentence():
    transform = Points(PointsOptions(neighbours=32)).transform(False, {})
    with pytest.raises(InputError, match="the cloud has 20 points, fewer than 32"):
        transform({"points": cloud(0, 0, 20), "label": 0})


def test_sampling_and_augmentation():
    options = PointsOptions(points=16, neighbours=8)
    train, val = (Points(options).transform(t, {}) for t in (True, False))
    sample = {"points": cloud(0, 0), "label": 2}
    a, b = val(sample), val(sample)
    assert torch.equal(a["points"], b["points"])
    assert a["points"].shape == (16, 3)
    assert torch.equal(a["points"], a["positions"])
    moved = train(sample)
    assert moved["positions"].shape == (16, 3)
    assert not torch.allclose(moved["points"], moved["positions"])
    assert moved["points"].norm(dim=1).max() <= 1 + 1e-6


def test_mean_class_accuracy_by_hand():
    metric = CloudMetric(2)
    logits = torch.eye(2)[[0, 0, 0, 1]] * 5
    metric.update(logits, {"label": torch.tensor([0, 0, 0, 0])})
    metric.update(logits[:1], {"label": torch.tensor([1])})
    scores = metric.compute()
    assert scores["top1"] == 60
    assert scores["macc"] == pytest.approx((75 + 0) / 2)


@pytest.mark.parametrize("projection", ["depth", "learned"])
def test_shapes_are_learned_and_predicted(tmp_path, projection):
    write_npz(tmp_path)
    extra = {"neighbours": 8, "views": "three", "votes": 2} if projection == "learned" else {}
    options = {**RECIPE.options, "projection": projection, **extra}
    recipe = replace(RECIPE, options=options, epochs=6 if projection == "depth" else 1)
    result = fit(None, tmp_path, recipe, tmp_path / "run", task="points", console=QUIET, workers=0)
    assert result.scores["top1"] >= (60 if projection == "depth" else 20)
    judged = evaluate(str(tmp_path / "run"), str(tmp_path))
    assert judged.models[0].scores["top1"] == pytest.approx(result.scores["top1"], abs=6)
    predictor = Predictor(tmp_path / "run", device="cpu")
    np.save(tmp_path / "new.npy", cloud(1, 999))
    (prediction,) = predictor(tmp_path / "new.npy")
    assert len(prediction.description["classes"]) == 3
    predictor.task.draw(prediction.sample, prediction.description).savefig(tmp_path / "f.png")
    np.save(tmp_path / "few.npy", np.full((30, 3), np.nan))
    (damaged,) = predictor(tmp_path / "few.npy")
    assert "NaN" in damaged.error


LEARNED = {**RECIPE.options, "projection": "learned", "neighbours": 8, "views": "three"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [RECIPE.options, LEARNED], ids=["depth", "learned"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, options):
    recipe = replace(RECIPE, options=options, epochs=2)
    data = tmp_path / "data"
    data.mkdir()
    assert_a_killed_run_resumes_to_the_same_bits(write_npz(data), tmp_path, recipe, 4)


@pytest.mark.slow
@pytest.mark.parametrize("options", [RECIPE.options, LEARNED], ids=["depth", "learned"])
def test_bf16_and_worker_processes_train_too(tmp_path, options):
    recipe = replace(RECIPE, options=options, epochs=1)
    data = tmp_path / "data"
    data.mkdir()
    result = fit(None, write_npz(data), recipe, tmp_path / "run", workers=2, amp="bf16")
    assert np.isfinite(result.scores["loss"])


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    options = {**RECIPE.options, "rotate": "none", "scale": 1.0, "shift": 0.0}
    recipe = replace(RECIPE, options=options, batch_size=8, epochs=2)
    data = tmp_path / "data"
    data.mkdir()
    assert_two_processes_learn_what_one_does(write_npz(data), tmp_path, recipe)
