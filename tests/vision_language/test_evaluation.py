"""Retrieval and zero-shot classification against definitions written out with loops."""

import pytest
import torch

from seewide.errors import InputError
from seewide.vision_language.clip import zeroshot
from seewide.vision_language.clip.retrieval import owners, report


def test_recall_is_the_definition():
    counts = [3, 1, 2, 5, 1, 1, 4, 2, 2, 2, 1, 3]
    owner = owners(counts)
    scores = torch.randn(len(counts), len(owner)).double()
    found = report(scores, owner)
    t2i = [1 + sum(scores[i, j] > scores[owner[j], j] for i in range(12)) for j in range(27)]
    i2t = []
    for i in range(12):
        order = scores[i].argsort(descending=True).tolist()
        i2t.append(1 + min(order.index(j) for j in range(27) if owner[j] == i))
    for recall, ranks in ((found.text_to_image, t2i), (found.image_to_text, i2t)):
        for k in (1, 5, 10):
            assert recall.at[k] == pytest.approx(100 * sum(r <= k for r in ranks) / len(ranks))


def test_chance_with_five_captions_an_image():
    found = report(torch.randn(100, 500), owners([5] * 100))
    assert found.text_to_image.chance == {1: 1, 5: 5, 10: 10}
    assert found.image_to_text.chance[10] == pytest.approx(9.6, abs=0.05)


def test_constant_scores_find_nothing():
    found = report(torch.zeros(20, 40), owners([2] * 20))
    assert found.text_to_image.at == found.image_to_text.at == {1: 0, 5: 0, 10: 0}


def test_accuracies():
    scores = torch.tensor([[3.0, 2, 1], [3, 2, 1], [1, 2, 3], [1, 3, 2]])
    found = zeroshot.accuracies(scores, torch.tensor([0, 0, 0, 1]), ["a", "b", "c"][:3])
    assert found.top1 == 75
    assert found.confusion_KK.tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_mean_per_class_weights_classes_equally():
    scores = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    found = zeroshot.accuracies(scores, torch.tensor([0, 0, 0, 1]), ["a", "b"])
    assert (found.top1, found.mean_per_class) == (75, 50)


def test_class_names_and_templates(tmp_path):
    names, templates = tmp_path / "names.txt", tmp_path / "templates.txt"
    names.write_text("rose\n\nfire lily\n")
    assert zeroshot.read_class_names(names, ["a", "b"]) == ["rose", "fire lily"]
    assert zeroshot.read_class_names(None, ["fire_lily"]) == ["fire lily"]
    with pytest.raises(InputError, match="has 2 class names and the data 3 folders"):
        zeroshot.read_class_names(names, ["a", "b", "c"])
    templates.write_text("a {c}.\na photo\n")
    with pytest.raises(InputError, match=r"'a photo' .* has no \{c\} for the class name"):
        zeroshot.read_templates(templates)
    templates.write_text("")
    with pytest.raises(InputError, match="is empty"):
        zeroshot.read_templates(templates)
