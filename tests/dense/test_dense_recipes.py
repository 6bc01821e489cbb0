"""The recipes of COCO and ADE20K name networks, systems and options that there are."""

from seewide import list_models
from seewide.recipes import FAMILIES
from seewide.tasks import get_task

RECIPES = FAMILIES["dense"].recipes


def test_recipes_build_their_options():
    known = set(list_models(pretrained=True))
    for name, recipe in RECIPES.items():
        get_task(recipe.task).Options(**recipe.options)
        assert recipe.model in known, name
        smoke = recipe.smoke()
        get_task(smoke.task).Options(**smoke.options)
        assert recipe.batch_size == 8 * recipe.device_batch


def test_published_results():
    """One value of each table of the papers, by hand."""
    expected = {name: recipe.expected for name, recipe in RECIPES.items()}
    assert expected["unireplknet_xl_in22k_cascade_coco"] == {"map": 56.4, "mask_map": 49.0}
    assert expected["lsnet_b_mask_rcnn_coco"] == {"map": 40.8, "mask_map": 37.8}
    assert expected["lsnet_s_semantic_fpn_ade20k"] == {"miou": 41.0}
    assert expected["uniconvnet_b_mask_rcnn_coco_3x"] == {"map": 51.2, "mask_map": 45.6}
    assert RECIPES["unireplknet_l_in22k_upernet_ade20k_640"].layer_decay == 0.85
    assert RECIPES["lsnet_t_retinanet_coco"].decay_at == (8, 11)
