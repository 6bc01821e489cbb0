"""seewide: large-kernel vision for PyTorch."""
