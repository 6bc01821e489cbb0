"""Video classification: layouts on disk, damaged videos, training, resuming, prediction."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from task_runs import (
    TINY,
    assert_a_killed_run_resumes_to_the_same_bits,
    assert_two_processes_learn_what_one_does,
    train,
)

from seewide.data.frames import FrameFolder, VideoFile, open_video
from seewide.data.video import describe_video, open_videos
from seewide.data.video_transform import ClipTransform
from seewide.errors import InputError
from seewide.recipes import get
from seewide.tasks import guess_task
from seewide.tasks.video import VideoMetric, VideoOptions
from seewide.train import Predictor, evaluate


def moving(direction: int, seed: int, frames: int = 12, side: int = 24) -> np.ndarray:
    """A bright square that moves to the right (1) or the left (-1), (T, H, W, 3)."""
    generator = np.random.default_rng(seed)
    row, speed = generator.integers(2, side - 8), generator.uniform(0.8, 1.2)
    start = 0 if direction > 0 else side - 6
    video = np.full((frames, side, side + 4, 3), 30, np.uint8)
    for t in range(frames):
        column = int(np.clip(start + direction * speed * t, 0, side - 2))
        video[t, row : row + 6, column : column + 6] = 220
    return video


def write_frames(folder: Path, video: np.ndarray, pattern: str = "{:02}.png") -> Path:
    folder.mkdir(parents=True)
    for t, frame in enumerate(video):
        Image.fromarray(frame).save(folder / pattern.format(t))
    return folder


def write_mp4(path: Path, video: np.ndarray) -> Path:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt, stream.gop_size = "yuv420p", 4
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two classes that differ in the direction of motion only, ten frame folders each."""
    folder = tmp_path_factory.mktemp("clips")
    for name, direction in (("left", -1), ("right", 1)):
        for i in range(10):
            write_frames(folder / name / f"clip{i}", moving(direction, i))
    return folder


RECIPE = replace(
    get("small_video"),
    options={"frames": 4, "side": 24, "difference": True, "sampling": "spread", "flip": 0.0,
             "min_crop": 0.8, "label_smoothing": 0.0},
    epochs=2,
    batch_size=8,
    device_batch=4,
    drop_path=0.1,
    lr=4e-3,
    **TINY,
)  # fmt: skip


def test_frame_folders_are_videos_and_not_images(clips):
    assert guess_task(str(clips)) == ("video", "2 folders of frame folders")
    found = open_videos(clips)
    assert found.class_names == ("left", "right")
    assert (len(found.train), len(found.val)) == (16, 4)
    video = found.train[0]["video"]
    assert video.count() == 12
    assert np.array_equal(video.read([11, 0, 11])[0], moving(-1, 0)[11])


def test_folders_of_photos_are_not_videos(tmp_path):
    for name in ("cat", "dog"):
        for part in ("home", "zoo"):
            write_frames(tmp_path / name / part, moving(1, 0, 3), "photo{:02}0.png")
    assert describe_video(str(tmp_path)) is None
    assert guess_task(str(tmp_path))[0] == "classification"


def test_frames_are_sorted_by_number(tmp_path):
    write_frames(tmp_path / "a", moving(1, 0), "img_{}.png")
    assert FrameFolder(tmp_path / "a").files()[:3] == ["img_0.png", "img_1.png", "img_2.png"]


def test_lists_of_paths_and_labels(tmp_path):
    for name in ("a b", "c", "d"):
        write_frames(tmp_path / name, moving(1, 0))
    (tmp_path / "train.csv").write_text("a b 10\nc 12 2\n")
    (tmp_path / "val.csv").write_text("d 2\n")
    assert guess_task(str(tmp_path)) == ("video", "lists of videos")
    found = open_videos(tmp_path)
    assert found.class_names == ("2", "10")
    assert found.train.labels.tolist() == [1, 0]
    assert found.train[0]["video"].count() == 12
    assert found.held_out == "val.csv"
    (tmp_path / "val.csv").write_text("d 3\n")
    with pytest.raises(InputError, match=r"val.csv has a label 3 that train.csv lacks"):
        open_videos(tmp_path)
    (tmp_path / "train.csv").write_text("c,2\n")
    with pytest.raises(InputError, match=r"train.csv, line 1 is not `path label`"):
        open_videos(tmp_path)


def test_ucf101(tmp_path):
    for name in ("Archery", "Biking"):
        for i in range(2):
            write_mp4(tmp_path / name / f"v_{i}.avi", moving(1, i))
    (tmp_path / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    (tmp_path / "trainlist01.txt").write_text("Archery/v_0.avi 1\nBiking/v_0.avi 2\n")
    (tmp_path / "testlist01.txt").write_text("Archery/v_1.avi\nBiking/v_1.avi\n")
    assert describe_video(str(tmp_path)) == "UCF101"
    found = open_videos(tmp_path)
    assert [s["label"] for s in found.val] == [0, 1]
    assert found.val[1]["video"].count() == 12


def test_a_video_file_gives_its_frames(tmp_path):
    truth = moving(1, 3)
    video = VideoFile(write_mp4(tmp_path / "a.mp4", truth))
    assert video.count() == 12
    frames = video.read([10, 2, 2])
    assert frames.shape == (3, 24, 28, 3)
    assert np.abs(frames[0].astype(int) - truth[10]).mean() < 8  # compressed
    assert np.array_equal(frames[1], frames[2])
    video.verify()


def test_damaged_videos_are_one_sentence(tmp_path):
    whole = write_mp4(tmp_path / "a.mp4", moving(1, 0, 40)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "head.mp4").write_bytes(whole[:100])
    (tmp_path / "text.mp4").write_text("no video at all")
    cut = open_video(tmp_path / "cut.mp4")
    with pytest.raises(InputError, match=r"cut.mp4 is truncated: \d+ of 40 frames are there"):
        cut.verify()
    with pytest.raises(InputError, match=r"cut.mp4 is (truncated: only \d+ frames|damaged)"):
        cut.read([0, 39])
    for name, sentence in (("head", "has no stream of video"), ("text", "cannot be read as a vid")):
        with pytest.raises(InputError, match=f"{name}.mp4 {sentence}"):
            open_video(tmp_path / f"{name}.mp4").count()
    with pytest.raises(InputError, match="there is no video"):
        open_video(tmp_path / "gone.mp4")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"a.txt is no video; known are .mp4"):
        open_video(tmp_path / "a.txt")


def test_frames_of_different_sizes_are_refused(tmp_path):
    folder = write_frames(tmp_path / "a", moving(1, 0))
    Image.new("RGB", (10, 12)).save(folder / "05.png")
    with pytest.raises(InputError, match=r"frame 05.png has 10 x 12 pixels, 00.png has 28 x 24"):
        open_video(folder).read(range(12))
    (folder / "07.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"07.png"):
        open_video(folder).verify()


def clip_transform(**changes) -> ClipTransform:
    def first_four(_video):
        return np.array([[0, 1, 2, 3]])

    return ClipTransform(first_four, 16, (0.0,) * 3, (1.0,) * 3, **changes)


def test_all_frames_of_a_clip_are_augmented_alike(clips):
    folder = clips / "left" / "clip0"
    still = {"video": FrameFolder(folder), "label": 1}
    transform = clip_transform(
        train=True, rand_augment="rand-m9-n2-mstd0.5", erase=1.0, min_crop=0.3
    )
    transform.choose = lambda _video: np.array([[5, 5, 5, 5]])
    for seed in range(5):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        clip = transform(still)["clip"]
        assert clip.shape == (3, 4, 16, 16)
        # Erased pixels are noise of their own; all others are those of the first frame.
        assert (clip == clip[:, :1]).all(1).float().mean() > 0.4
    with pytest.raises(InputError, match="timm does not take rand_augment 'sharp-m9'"):
        clip_transform(train=True, rand_augment="sharp-m9")


def test_three_crops_along_the_longer_side(clips):
    sample = {"video": FrameFolder(clips / "left" / "clip0"), "label": 1}
    views = clip_transform(crops=3)(sample)["clip"]
    (centre,) = clip_transform()(sample)["clip"]
    assert views.shape == (3, 3, 4, 16, 16)
    assert torch.equal(views[1], centre)
    assert torch.equal(views[0][..., -1], views[2][..., -3])  # 18 columns after resizing


def test_scores_of_videos_and_of_views_by_hand():
    metric = VideoMetric(2)
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]]])
    metric.update(logits.log_softmax(2), {"label": torch.tensor([0, 1])})
    scores = metric.compute()
    # Mean probabilities of class 0: (0.88 + 0.27) / 2 and (0.95 + 0.27) / 2.
    assert scores["top1"] == 50
    assert scores["clip_top1"] == 50
    expected = -np.log(np.mean([[0.8808, 0.2689], [0.0474, 0.7311]], 1)).mean()
    assert scores["loss"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frames": 10}, "frames must be a square number .* got 10"),
        ({"crops": 2}, "crops must be 1 or 3, got 2"),
        ({"layout": "official", "frames": 9, "side": 64}, "a side divisible by 3, got 64"),
    ],
)
def test_refused_options(options, sentence):
    with pytest.raises(InputError, match=sentence):
        VideoOptions(**options)


def test_motion_is_learned_and_predicted(clips, tmp_path):
    result = train(clips, tmp_path / "run", replace(RECIPE, epochs=8, drop_path=0.0))
    assert result.scores["top1"] >= 75  # single frames say nothing about the class
    settings = {"crops": 3, "clips": 2}
    judged = evaluate(str(tmp_path / "run"), settings=settings)
    assert judged.deviation < 1e-3
    assert len(judged.models[0].metric.views.true_N) == 4 * 6
    predictor = Predictor(tmp_path / "run", device="cpu")
    (prediction,) = predictor(write_mp4(tmp_path / "new.mp4", moving(1, 70)))
    assert len(prediction.description["classes"]) == 2
    predictor.task.draw(prediction.sample, prediction.description).savefig(tmp_path / "f.png")
    (short,) = predictor(write_frames(tmp_path / "short", moving(1, 0, 3)))
    assert "has 3 frames, fewer than the 4 of a clip; task.short=repeat" in short.error
    with pytest.raises(InputError, match=r"frames .*cannot change"):
        evaluate(str(tmp_path / "run"), settings={"frames": 9})


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(clips, tmp_path):
    assert_a_killed_run_resumes_to_the_same_bits(clips, tmp_path, RECIPE, 7)


def test_bf16_and_worker_processes_train_too(clips, tmp_path):
    from seewide.train import fit

    result = fit(None, clips, replace(RECIPE, epochs=1), tmp_path, workers=2, amp="bf16")
    assert np.isfinite(result.scores["loss"])


@pytest.mark.slow
def test_two_processes_learn_what_one_does(clips, tmp_path):
    options = {**RECIPE.options, "min_crop": 1.0}
    recipe = replace(RECIPE, options=options, drop_path=0.0, ema_decay=0.0)
    assert_two_processes_learn_what_one_does(clips, tmp_path, recipe)
