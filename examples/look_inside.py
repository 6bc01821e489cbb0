"""Draw effective kernels, PeLK's positions, LSNet's maps, and receptive fields inside UniConvNet.

    python examples/look_inside.py image.jpg --weights pelk_t=pelk_t.safetensors --out gallery

Without an image, noise is used; without weights, random ones.
"""

import argparse
from pathlib import Path

import timm
import torch

import seewide
from seewide.analysis import internals
from seewide.analysis.analyzed_model import AnalyzedModel
from seewide.analysis.erf import draw_erf
from seewide.analysis.images import load_image

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("image", nargs="?")
parser.add_argument("--out", type=Path, default=Path("gallery"))
parser.add_argument("--side", type=int, default=128, help="pixels")
parser.add_argument("--weights", action="append", default=[], metavar="MODEL=FILE")
options = parser.parse_args()
torch.manual_seed(0)
x = torch.randn(1, 3, options.side, options.side)
if options.image:
    x = AnalyzedModel("", None).resizing(options.side)(load_image(options.image))[None]


def network(name, **arguments):
    files = dict(pair.split("=", 1) for pair in options.weights)
    model = timm.create_model(name, **arguments).eval()
    return seewide.load_checkpoint(model, files[name]) if name in files else model


pelk = network("pelk_t").stages[0]
shared = pelk.blocks[0].mixer.mixer
kernels = {"PeLK, 51 x 51 shared": internals.impulse_response(shared, 44, 51)[0]}
unireplknet = network("unireplknet_a").stages[1].blocks[0].dwconv
kernels["UniRepLKNet, 13 x 13 fused"] = internals.impulse_response(unireplknet, 80, 13)[0]
slak = network("slak_t").stages[0].blocks[0].mixer
kernels["SLaK, 51 x 5 and 5 x 51"] = internals.impulse_response(slak, 124, 51)[0]
print("written:", internals.draw_maps(kernels, options.out / "kernels.png", signed=True))
added = shared(torch.zeros(1, 44, 56, 56), pelk.pos_embed)[0].detach().numpy()
positions = {f"embedding {i}": pelk.pos_embed[i].detach().numpy() for i in range(3)}
positions |= {f"added to zeros, {i}": added[i] for i in range(3)}
print("written:", internals.draw_maps(positions, options.out / "positions.png", signed=True))
names = [f"stages.2.blocks.1.mixer{part}" for part in (".weight_norm", ".lkp.dw", "")]
lsnet = internals.feature_maps(network("lsnet_b", img_size=options.side), x, names).values()
weights, perceived, mixed = lsnet
maps = {"accumulated coefficient": internals.accumulated_coefficients(weights, 9)}
maps |= {f"LKP, depthwise, {i}": perceived[0, i].numpy() for i in range(4)}
maps |= {f"LS convolution, {i}": mixed[0, i].numpy() for i in range(5)}
print("written:", internals.draw_maps(maps, options.out / "lsnet.png", columns=5))
names = [f"stages.0.blocks.0.rfa.layers.{i}" for i in range(3)]
fields = internals.erf_by_layer(network("uniconvnet_a"), x, names)
print("written:", draw_erf({n[-1]: f for n, f in fields.items()}, options.out / "rfa.png"))
