"""What is inside: kernels as they act, LSNet's weights, PeLK's positions, the aggregator's field.

    python examples/look_inside.py photo.jpg --out gallery

Without a photo, noise; with random weights, or --weights pelk_t=pelk_t.safetensors.
"""

import argparse
from pathlib import Path

import timm
import torch

import seewide
from seewide.analysis import anatomy
from seewide.analysis.erf import draw_erf
from seewide.analysis.images import normalized, open_picture

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("photo", nargs="?", type=Path)
parser.add_argument("--out", type=Path, default=Path("gallery"))
parser.add_argument("--side", type=int, default=128, help="pixels")
parser.add_argument("--weights", action="append", default=[], metavar="MODEL=FILE")
options = parser.parse_args()

torch.manual_seed(0)
files = dict(pair.split("=", 1) for pair in options.weights)
x = torch.randn(1, 3, options.side, options.side)
if options.photo:
    x = normalized(open_picture(options.photo), options.side)[None]


def network(name, **arguments):
    model = timm.create_model(name, **arguments).eval()
    return seewide.load_checkpoint(model, files[name]) if name in files else model


pelk = network("pelk_t").stages[0]
shared = pelk.blocks[0].mixer.mixer
kernels = {"PeLK, 51 x 51 shared": anatomy.impulse_response(shared, 44, 51)[0]}
unireplknet = network("unireplknet_a").stages[1].blocks[0].dwconv
kernels["UniRepLKNet, 13 x 13 merged"] = anatomy.impulse_response(unireplknet, 80, 13)[0]
slak = network("slak_t").stages[0].blocks[0].mixer
kernels["SLaK, 51 x 5 and 5 x 51"] = anatomy.impulse_response(slak, 124, 51)[0]
print("drawn:", anatomy.draw_maps(kernels, options.out / "kernels.png", signed=True))
added = shared(torch.zeros(1, 44, 56, 56), pelk.pos_embed)[0].detach().numpy()
positions = {f"embedding {i}": pelk.pos_embed[i].detach().numpy() for i in range(3)}
positions |= {f"added to zeros, {i}": added[i] for i in range(3)}
print("drawn:", anatomy.draw_maps(positions, options.out / "positions.png", signed=True))
names = [f"stages.2.blocks.1.mixer{part}" for part in (".weight_norm", ".lkp", "")]
lsnet = network("lsnet_b", img_size=options.side)
weights, perceived, aggregated = anatomy.feature_maps(lsnet, x, names).values()
maps = {f"weight of tap {i}": tap for i, tap in enumerate(anatomy.tap_means(weights, 9))}
maps |= {f"LKP {i}": perceived[0, i].numpy() for i in range(3)}
maps |= {f"SKA {i}": aggregated[0, i].numpy() for i in range(3)}
print("drawn:", anatomy.draw_maps(maps, options.out / "lsnet.png", columns=5))
layers = [f"stages.0.blocks.0.rfa.layers.{i}" for i in range(3)]
flow = anatomy.field_flow(network("uniconvnet_a"), x, layers)
print("drawn:", draw_erf({n.split("rfa.")[1]: f for n, f in flow.items()}, options.out / "rfa.png"))
