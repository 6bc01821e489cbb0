"""`python -m seewide` is the command `seewide`."""

from seewide.cli import main

main()
