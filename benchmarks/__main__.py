"""`python -m benchmarks ...` is `seewide bench ...`."""

import sys

from seewide.cli import app

if __name__ == "__main__":
    app(["bench", *sys.argv[1:]], prog_name="python -m")
