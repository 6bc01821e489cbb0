"""How operators are made fast. One folder per device, one file per operator, named as in `ops`."""
