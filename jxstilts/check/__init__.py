"""`jxstilts check`: compiles each training step of a study from shapes alone, for the devices here or an absent TPU.

chips.py      TPU slices, sizes of memory, peak rates
program.py    one step: shapes -> compiled -> memory, FLOPs, collectives, a predicted time
phases.py     the steps of a study
examples.py   one real batch in words
report.py     all of it against a device's memory, and what would help
"""

from jxstilts.check.command import run

__all__ = ["run"]
