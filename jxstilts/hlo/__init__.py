"""Reads the text of a compiled program (XLA's HLO) and counts what a device does in it.

Counted are the floating-point operations of the matrix products, the bytes between the chip and its main memory, and
the collectives. A loop's body counts as often as it runs, which XLA's own `cost_analysis` does not do. The text is that
of one device's program: all figures are per device.
"""

from jxstilts.hlo.cost import Collective, Cost, Operation, cost, group_size, trip_count
from jxstilts.hlo.text import Module, read

__all__ = ["Collective", "Cost", "Module", "Operation", "cost", "group_size", "read", "trip_count"]
