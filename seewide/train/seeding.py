"""The former place of `seewide.seeding`."""

from seewide.seeding import preserve_generators as left_alone
from seewide.seeding import seed_all, seeded
from seewide.seeding import seed_cpu as reseed

__all__ = ["left_alone", "reseed", "seed_all", "seeded"]
