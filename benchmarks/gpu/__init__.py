"""The GPU kernels, measured where there is a GPU and compiled where there is none."""
