"""Figures computed by the authors' code (../shared/parity/dense), and how to compare with them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models import FeatureInfo
from torch import nn

from seewide.dense import matching
from seewide.dense.images import ImageBatch
from seewide.dense.matching import Sampler

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "parity" / "dense"


def helper():
    """The module that stands beside the figures."""
    if not FOLDER.is_dir():
        pytest.skip("the authors' figures are not on this machine (../shared/parity/dense)")
    spec = importlib.util.spec_from_file_location("dense_golden", FOLDER / "dense.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Maps(nn.Module):
    """A backbone that returns given maps, whatever the image."""

    def __init__(self, channels, strides):
        super().__init__()
        info = [
            {"num_chs": c, "reduction": s, "module": str(i)}
            for i, (c, s) in enumerate(zip(channels, strides, strict=True))
        ]
        self.feature_info = FeatureInfo(info, tuple(range(len(info))))
        self.given = None

    def forward(self, x):
        return list(self.given)


class Golden:
    """One set of figures: `spec`, `arrays`, `error(name, value)`, inputs and ground truth."""

    def __init__(self, name):
        self.helper = helper()
        record = self.helper.load(name)
        self.spec, self.arrays = record.spec, record.arrays

    def error(self, name, value):
        """Worst difference of `value` from the stored entries, relative to their largest."""
        return self.helper.compare(self.arrays, name, value)

    def state(self):
        """The filled weights, under the authors' keys, integer buffers left out."""
        return self.helper.weights(self.spec)

    def inputs(self):
        return self.helper.inputs(self.spec)

    def batch(self, x):
        how = self.spec["input"]
        sizes, original = ([tuple(s) for s in how[k]] for k in ("img_shapes", "ori_shapes"))
        return ImageBatch(x, sizes, [(how["height"], how["width"])] * how["batch"], original)

    def targets(self):
        width = self.spec["input"]["width"]
        found = []
        for i in range(self.spec["input"]["batch"]):
            masks = np.unpackbits(self.arrays[f"gt{i}.masks"], axis=-1)[..., :width]
            found.append(
                {
                    "boxes": torch.from_numpy(self.arrays[f"gt{i}.boxes"]),
                    "labels": torch.from_numpy(self.arrays[f"gt{i}.labels"]),
                    "masks": torch.from_numpy(masks),
                }
            )
        return found

    def labels(self, classes):
        """Label maps for the loss: random blocks of 8 x 8 pixels, some of them ignored."""
        how = self.spec["input"]
        shape = (how["batch"], how["height"] // 8, how["width"] // 8)
        drawn = np.random.RandomState(self.spec["label_seed"]).randint(0, classes + 12, shape)
        drawn[drawn >= classes] = 255
        return torch.from_numpy(drawn.repeat(8, 1).repeat(8, 2)).long()

    def proposals(self, prefix="proposals"):
        count = self.spec["input"]["batch"]
        return [torch.from_numpy(self.arrays[f"{prefix}{i}"]) for i in range(count)]

    def check_proposals(self, found, prefix="proposals", share=0.98):
        """The authors' proposals are among ours; those of nearly equal score may change places."""
        for (boxes, scores), theirs in zip(found, self.proposals(prefix), strict=True):
            assert boxes.shape == theirs[:, :4].shape
            torch.testing.assert_close(scores, theirs[:, 4], atol=1e-4, rtol=1e-4)
            near = torch.cdist(theirs[:, :4], boxes, p=torch.inf).amin(1) < 0.02
            assert near.float().mean() >= share

    def check_detections(self, found, share=0.98, tolerance=1e-3):
        for i, result in enumerate(found):
            ours = (result[k] for k in ("boxes", "scores", "labels"))
            matched, score, corner = self.helper.match_detections(self.arrays, i, *ours)
            assert matched >= share, f"{matched:.3f} of the authors' detections of image {i}"
            assert score < tolerance
            assert corner < 0.1
            assert len(result["boxes"]) == len(self.arrays[f"det{i}.boxes"])

    def check_same_order(self, found):
        """Labels equal one by one, boxes and scores close: no two scores are near a tie."""
        for i, result in enumerate(found):
            assert result["labels"].tolist() == self.arrays[f"det{i}.labels"].tolist()
            for key, tolerance in (("boxes", 1e-3), ("scores", 1e-5)):
                theirs = torch.from_numpy(self.arrays[f"det{i}.{key}"])
                torch.testing.assert_close(result[key], theirs, atol=tolerance, rtol=1e-5)

    def check_masks(self, found):
        """The first masks pixel by pixel where the boxes come in the authors' order."""
        for i, result in enumerate(found):
            height, width = self.spec["input"]["ori_shapes"][i]
            packed = self.arrays[f"det{i}.masks_packed"]
            theirs = torch.from_numpy(np.unpackbits(packed, axis=-1)[..., :width]).bool()
            ours = result["masks"][: len(theirs), 0]
            assert ours.shape[1:] == (height, width)
            assert (ours != theirs).float().mean() < 1e-4
            area = torch.from_numpy(self.arrays[f"det{i}.mask_area"])
            near = (result["masks"].flatten(1).sum(1) - area).abs() <= 2 + 0.001 * area
            assert near.float().mean() >= 0.97

    def check_loss(self, key, value, tolerance=1e-5):
        theirs = float(self.arrays[f"loss.{key}"][0])
        assert float(value.detach()) == pytest.approx(theirs, rel=tolerance), key

    def check_gradients(self, name, model, inputs, total, rename=lambda key: key):
        """Gradient norms of `total`, of the parameters and the inputs."""
        stored = helper_json(f"{name}.grads.json")
        assert float(total.detach()) == pytest.approx(stored["loss"], rel=1e-5)
        total.backward()
        norms = {rename(k): p.grad for k, p in model.named_parameters()}
        norms |= {f"input{i}": x.grad for i, x in enumerate(inputs)}
        norms = {k: float(g.double().norm()) if g is not None else 0.0 for k, g in norms.items()}
        assert norms.keys() == stored["norms"].keys()
        for key, theirs in stored["norms"].items():
            assert norms[key] == pytest.approx(theirs, rel=1e-4, abs=1e-9), key


def helper_json(name):
    import json

    return json.loads((FOLDER / name).read_text())


@pytest.fixture
def first_candidates(monkeypatch):
    """Sampling takes the first candidates instead of random ones, as the figures' authors did."""
    monkeypatch.setattr(matching, "choose", lambda candidates, count: candidates[:count])


def as_measured(model, spec):
    """Set the smaller numbers of proposals and samples that the figures were made with."""
    rcnn = spec["train_cfg"]["rcnn"]
    first = rcnn[0] if isinstance(rcnn, list) else rcnn
    model.roi_head.sampler = Sampler(first["sampler"]["num"], first["sampler"]["pos_fraction"])
    model.train_proposals = spec["train_cfg"]["rpn_proposal"]["max_per_img"]
    model.test_proposals = spec["test_cfg"]["rpn"]["max_per_img"]
    return model


def load_heads(model, state):
    """Load weights under the authors' keys into a model whose backbone has none."""
    own = model.state_dict()
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **state})
    return model.eval()


__all__ = ["Golden", "Maps", "as_measured", "first_candidates", "load_heads"]
