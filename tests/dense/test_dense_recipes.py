"""The recipes of COCO and ADE20K name networks, systems and options that there are."""

from seewide import list_models
from seewide.recipes import FAMILIES
from seewide.tasks import get_task

RECIPES = FAMILIES["dense"].recipes


def test_recipes_build_their_options():
    known = {"pretrained": list_models(pretrained=True), "checkpoint": list_models()}
    for name, recipe in RECIPES.items():
        get_task(recipe.task).Options(**recipe.options)
        assert recipe.model in known[recipe.start_from], name
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


def test_networks_of_other_groups_start_from_weights_of_their_own():
    """UniConvNet-N0 and P0 of other groups than the published weights have."""
    eight = RECIPES["uniconvnet_n0_retinanet_coco"]
    assert (eight.start_from, eight.model_options) == ("checkpoint", {"group_channels": 8})
    assert RECIPES["uniconvnet_p0_deeplabv3_ade20k"].model_options == {"group_channels": 16}
    assert RECIPES["uniconvnet_p0_retinanet_coco"].model_options == {}
    assert RECIPES["uniconvnet_a_ssdlite_coco"].batch_size == 192
    assert RECIPES["pelk_t_cascade_coco"].layer_groups == 6
    assert RECIPES["uniconvnet_l_cascade_coco"].decay_at == (8, 11)
