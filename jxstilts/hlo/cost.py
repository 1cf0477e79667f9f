"""Counts the FLOPs, the traffic with main memory and the collectives of a module, loops as often as they run."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from jxstilts.hlo.text import Computation, Instruction, Module, Shape
from jxstilts.runtime import InputError

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
FREE = {  # move nothing
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "copy-done", "slice-done", "async-done", "async-update", "all-reduce-done", "all-gather-done",
    "collective-permute-done", "optimization-barrier",
}  # fmt: skip
# custom calls of the TPU compiler that make places and tokens, not work
FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "PrepareAsyncCallStart", "PrepareAsyncCallDone")
SLICES = ("dynamic-slice", "slice", "gather")  # read as much of their first operand as they give
CALLS = ("calls", "to_apply", "body", "condition", "branch_computations", "called_computations")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A top-level instruction that computes or moves: what it does each time, and how often it runs."""

    name: str
    opcode: str
    flops: float
    bytes: float
    times: int


@dataclasses.dataclass(frozen=True)
class Collective:
    """bytes: of the whole array, as the collective's widest side has it. sent: what each device sends in a ring."""

    kind: str
    bytes: int
    sent: float
    group: int  # devices that take part together
    times: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one device does in one run of the program."""

    operations: tuple[Operation, ...]
    collectives: tuple[Collective, ...]
    unknown_loops: tuple[str, ...]  # counted once, since the text does not say how often they run
    custom_calls: Mapping[str, int]  # target: number; their floating-point operations are not known

    @property
    def flops(self) -> float:
        return sum(each.flops * each.times for each in self.operations)

    @property
    def bytes(self) -> float:
        return sum(each.bytes * each.times for each in self.operations)

    @property
    def sent(self) -> float:
        return sum(each.sent * each.times for each in self.collectives)

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Returns {kind of collective: {"count", "bytes", "sent"}}."""
        found: dict[str, dict[str, float]] = {}
        for each in self.collectives:
            row = found.setdefault(each.kind, {"count": 0, "bytes": 0, "sent": 0.0})
            row["count"] += each.times
            row["bytes"] += each.bytes * each.times
            row["sent"] += each.sent * each.times
        return dict(sorted(found.items()))


def cost(module: Module) -> Cost:
    """Counts a module, loops by the number of times that they run. Both sides of a condition count."""
    counter = _Counter(module)
    counter.walk(module.entry, 1)
    return Cost(
        tuple(counter.operations), tuple(counter.collectives), tuple(counter.unknown), dict(counter.custom_calls)
    )  # fmt: skip


class _Counter:
    def __init__(self, module: Module):
        self.module = module
        self.operations: list[Operation] = []
        self.collectives: list[Collective] = []
        self.unknown: list[str] = []
        self.custom_calls: dict[str, int] = {}

    def walk(self, name: str, times: int) -> None:
        """Counts a computation whose instructions run one after the other."""
        computation = self.module.computations[name]
        for each in computation.instructions.values():
            kind = each.opcode.removesuffix("-start")
            if each.opcode == "while":
                self._loop(computation, each, times)
            elif kind in COLLECTIVES:
                self._collective(computation, each, kind, times)
            elif each.opcode in ("call", "conditional", "async-start"):
                for called in _called(each):
                    self.walk(called, times)
            elif each.opcode not in FREE:
                if each.opcode == "custom-call":
                    target = re.search(r'custom_call_target="([^"]*)"', each.attributes)[1]
                    if target in FREE_CALLS:
                        continue
                    self.custom_calls[target] = self.custom_calls.get(target, 0) + times
                if each.opcode == "fusion":
                    self._inside(_called(each)[0], times)
                flops, moved = self._flops(computation, each), self._moved(computation, each)
                if flops or moved:
                    self.operations.append(Operation(each.name, each.opcode, flops, moved, times))

    def _loop(self, computation: Computation, loop: Instruction, times: int) -> None:
        trips = trip_count(self.module, computation, loop)
        if trips is None:
            self.unknown.append(loop.name)
        self.walk(_attribute(loop, "body"), times * (1 if trips is None else trips))

    def _inside(self, name: str, times: int) -> None:
        """Finds the collectives that a fusion holds."""
        computation = self.module.computations[name]
        for each in computation.instructions.values():
            kind = each.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                users = _users(computation, each.name)
                if kind == "all-reduce" and users and all(user.opcode == "dynamic-slice" for user in users):
                    kind = "reduce-scatter"  # of which each device keeps its part
                self._collective(computation, each, kind, times)
            elif each.opcode == "fusion":
                self._inside(_called(each)[0], times)

    def _collective(self, computation: Computation, each: Instruction, kind: str, times: int) -> None:
        group = group_size(each.attributes, self.module.devices)
        given = sum(shape.bytes for name in each.operands for shape in _result(computation, name))
        if group > 1 and given:
            whole = given * (group if kind == "all-gather" else 1)
            share = 1.0 if kind.startswith("collective") else (2.0 if kind == "all-reduce" else 1.0) * (1 - 1 / group)
            self.collectives.append(Collective(kind, whole, whole * share, group, times))

    def _flops(self, computation: Computation, each: Instruction) -> float:
        """Floating-point operations of the matrix products in an instruction, all that it calls included."""
        if each.opcode == "dot":
            left = _result(computation, each.operands[0])[0]
            summed = _numbers(each.attributes, "lhs_contracting_dims")
            return 2.0 * each.shapes[0].size * math.prod(left.dims[i] for i in summed)
        if each.opcode == "convolution":
            return _convolution(each, *(_result(computation, name)[0] for name in each.operands[:2]))
        if each.opcode == "fusion":
            inner = self.module.computations[_called(each)[0]]
            return sum(self._flops(inner, one) for one in inner.instructions.values())
        return 0.0

    def _moved(self, computation: Computation, each: Instruction) -> float:
        """Bytes that an instruction reads from main memory and writes there."""
        given = [_result(computation, name) for name in each.operands]
        if each.opcode in ("copy-start", "slice-start"):  # (destination, source, context), ((source), part, context)
            size = min(shape.bytes for shape in each.shapes[:2])
            return float(size * sum(shape.memory == 0 for shape in each.shapes[:2]))
        if each.opcode in SLICES:
            return float(_main(each.shapes) + (_main(each.shapes) if _main(given[0]) else 0))
        if each.opcode == "dynamic-update-slice":
            return float(2 * given[1][0].bytes if _main(given[0]) else 0)
        if each.opcode != "fusion":
            return float(_main(each.shapes) + sum(map(_main, given)))
        name = _called(each)[0]
        read = sum(min(self._read(name, number), _main(shapes)) for number, shapes in enumerate(given) if _main(shapes))
        written = [
            min(self._written(name, index), shape.bytes) for index, shape in enumerate(each.shapes) if shape.memory == 0
        ]
        return float(read + sum(written))

    def _read(self, name: str, number: int) -> float:
        """Bytes that a fused computation reads of its parameter `number`: of slices only the part."""
        computation = self.module.computations[name]
        parameter = next(
            each.name for each in computation.instructions.values()
            if each.opcode == "parameter" and each.value == str(number)
        )  # fmt: skip
        return self._read_of(computation, parameter)

    def _read_of(self, computation: Computation, name: str) -> float:
        total = 0.0
        for user in computation.instructions.values():
            for place, operand in enumerate(user.operands):
                if operand != name:
                    continue
                if user.opcode == "bitcast":
                    total += self._read_of(computation, user.name)
                elif user.opcode in SLICES and place == 0:
                    total += user.shapes[0].bytes
                elif user.opcode == "dynamic-update-slice" and place == 0:
                    continue  # changed in place
                elif user.opcode == "fusion":
                    total += self._read(_called(user)[0], place)
                else:
                    return math.inf  # the whole; the caller knows its size
        return total

    def _written(self, name: str, index: int) -> float:
        """Bytes that a fused computation writes of its result `index`: of an update in place only the part."""
        computation = self.module.computations[name]
        at = computation.instructions[computation.root]
        if at.opcode == "tuple":
            at = computation.instructions[at.operands[index]]
        while at.opcode == "bitcast":
            at = computation.instructions[at.operands[0]]
        if at.opcode == "dynamic-update-slice":
            return float(_result(computation, at.operands[1])[0].bytes)
        return self._written(_called(at)[0], 0) if at.opcode == "fusion" else math.inf


def _users(computation: Computation, name: str) -> list[Instruction]:
    """The instructions that read a result, or an element of it."""
    users = [each for each in computation.instructions.values() if name in each.operands]
    elements = [_users(computation, each.name) for each in users if each.opcode == "get-tuple-element"]
    return [each for each in users if each.opcode != "get-tuple-element"] + [each for some in elements for each in some]


def _main(shapes: Iterable[Shape]) -> int:
    return sum(shape.bytes for shape in shapes if shape.memory == 0)


def _result(computation: Computation, name: str) -> tuple[Shape, ...]:
    return computation.instructions[name].shapes


def _attribute(each: Instruction, key: str) -> str:
    found = re.search(rf"\b{key}=%?([\w.\-]+)", each.attributes)
    if not found:
        raise InputError(f"the compiled program's {each.opcode} {each.name} has no {key}")
    return found[1]


def _called(each: Instruction) -> list[str]:
    """Names of the computations that an instruction calls."""
    names = []
    for key in CALLS:
        found = re.search(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", each.attributes)
        names += re.findall(r"[\w.\-]+", found[1]) if found else []
    return names


def _numbers(attributes: str, key: str) -> list[int]:
    found = re.search(rf"\b{key}=\{{([\d,]*)\}}", attributes)
    return [int(number) for number in found[1].split(",") if number] if found else []


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """Returns how often a loop's body runs; None where neither the compiler nor the loop's condition says it.

    A condition says it where it is `counter < constant`, and the counter starts from a constant and grows by one
    (by two, say, where the compiler has unrolled the loop).
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations[_attribute(loop, "condition")]
    test = condition.instructions[condition.root]
    sides = [condition.instructions[name] for name in test.operands]
    if test.opcode == "fusion":  # a comparison of its operands
        inner = module.computations[_called(test)[0]]
        test = inner.instructions[inner.root]
        if [inner.instructions[name].value for name in test.operands] != ["0", "1"]:
            return None
    if test.opcode != "compare" or "direction=LT" not in test.attributes or len(sides) != 2:
        return None
    if sides[0].opcode != "get-tuple-element" or sides[1].opcode != "constant":
        return None
    place = int(re.search(r"index=(\d+)", sides[0].attributes)[1])
    body = module.computations[_attribute(loop, "body")]
    begin = _element(computation, loop.operands[0], place)
    after = _element(body, body.root, place)
    if begin is None or begin.opcode != "constant" or after is None or after.opcode != "add":
        return None
    added = [body.instructions[name] for name in after.operands]
    steps = [int(each.value) for each in added if each.opcode == "constant"]
    return -(-(int(sides[1].value) - int(begin.value)) // steps[0]) if len(steps) == 1 and steps[0] > 0 else None


def _element(computation: Computation, name: str, place: int) -> Instruction | None:
    """Returns the instruction that makes an element of a tuple, copies left out; None where it is not made here."""
    made = computation.instructions[name]
    if made.opcode != "tuple":
        return None
    each = computation.instructions[made.operands[place]]
    while each.opcode in ("copy", "bitcast"):
        each = computation.instructions[each.operands[0]]
    return each


def group_size(attributes: str, devices: int) -> int:
    """Returns how many devices take part in a collective together. Raises InputError for an unknown notation."""
    found = re.search(r"replica_groups=(\S.*?)(?:, (?!device_ids)[a-z_]+=|$)", attributes)
    if not found:
        pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)", attributes)
        return 2 if pairs and pairs[1] != pairs[2] else devices
    text = found[1]
    if text.startswith("{{"):
        return text[2:].split("}")[0].count(",") + 1
    if listed := re.match(r"\[(\d+),(\d+)\]<=", text):
        return int(listed[2])
    if named := re.match(r"mesh\[(.*?)\].*\{(.*?)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        axes = re.findall(r"'([^']+)'", named[2])
        if ":" not in named[2] and set(axes) <= set(sizes):
            return math.prod(int(sizes[axis]) for axis in axes)
    if text.startswith("{}"):
        return devices
    raise InputError(f"the compiled program groups devices in a way that is not known here: replica_groups={text[:80]}")


def _convolution(each: Instruction, left: Shape, right: Shape) -> float:
    """Floating-point operations of a convolution, which is how the TPU compiler writes matrix products.

    Batch dimensions are spatial ones there, with padding and holes: only products of two real elements count.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.attributes)
    inputs, kernel, output = labels[1], labels[2], labels[3]
    found = re.search(r"window=\{([^}]*)\}", each.attributes)
    window = dict(part.split("=") for part in found[1].split()) if found else {}
    groups = re.search(r"batch_group_count=(\d+)", each.attributes)
    total = 2.0 * right.dims[kernel.index("i")] * right.dims[kernel.index("o")]
    total *= left.dims[inputs.index("b")] / (int(groups[1]) if groups else 1)
    for place, axis in enumerate(sorted(filter(str.isdigit, inputs), key=int)):
        sizes = [shape.dims[label.index(axis)] for shape, label in (
            (left, inputs), (right, kernel), (each.shapes[0], output))]  # fmt: skip

        def value(key: str, default: str, place: int = place) -> str:
            return window[key].split("x")[place] if key in window else default

        low = int(value("pad", "0_0").split("_")[0])
        steps = [int(value(key, "1")) for key in ("stride", "lhs_dilate", "rhs_dilate")]
        total *= _meetings(*sizes, low, *steps)
    return total


def _meetings(size: int, kernel: int, output: int, low: int, stride: int, holes: int, spread: int) -> int:
    """Number of pairs (output place, kernel place) that fall on a real element of the input along one dimension."""
    at = np.arange(output)[:, None] * stride + np.arange(kernel)[None] * spread - low
    return int(((at >= 0) & (at <= (size - 1) * holes) & (at % holes == 0)).sum())
