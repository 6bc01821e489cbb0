"""Files that a bundle copies: they run where this package is not installed."""
