"""`python -m benchmarks`: time operators and networks against baselines, measured in turns.

python -m benchmarks ops depthwise --quick
python -m benchmarks ops dcnv3 --base HEAD~3
python -m benchmarks models unireplknet_t
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.run import KINDS, run
from seewide.console import complain, make_console
from seewide.errors import InputError


def main(words: list[str] | None = None) -> int:
    """Run the benchmarks that the command line names; 2 for input that cannot work."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("what", metavar="|".join(KINDS), help="What is measured.")
    parser.add_argument("names", nargs="*", help="Operators or networks. Default: all.")
    parser.add_argument("--quick", action="store_true", help="A few cases, and no files.")
    parser.add_argument("--threads", type=int, help="CPU threads. Default: torch's own choice.")
    parser.add_argument("--base", metavar="REV", help="Compare with this git revision, in turns.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda.")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16.")
    parser.add_argument(
        "--compile", dest="compiled", action="store_true", help="Networks: also torch.compile."
    )
    arguments = vars(parser.parse_intermixed_args(words))
    console = make_console()
    if not console.is_terminal:
        console.width = 200
    try:
        run(arguments.pop("what"), **arguments, console=console)
    except InputError as error:
        complain(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
