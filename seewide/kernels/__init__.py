"""Fast implementations of operators: a folder per device, a file per operator as in `ops`."""
