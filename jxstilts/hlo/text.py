"""The text of a compiled program (XLA's HLO) as computations, instructions and shapes."""

import dataclasses
import math
import re

from jxstilts.runtime import InputError

BITS = {"pred": 8, "bf16": 16, "s4": 4, "u4": 4, "token": 0, "opaque": 0}  # others end in their number of bits


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array. memory: 0 is the main memory of the device; another is on the chip, or scalar memory."""

    dtype: str
    dims: tuple[int, ...]
    memory: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        digits = re.search(r"\d+", self.dtype)
        bits = BITS[self.dtype] if self.dtype in BITS else int(digits[0]) if digits else 0
        return -(-self.size * bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`shapes`: of its results, several for a tuple (flat). attributes: the text after the operands."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    value: str = ""  # of a constant; the number of a parameter


@dataclasses.dataclass(frozen=True)
class Computation:
    instructions: dict[str, Instruction]
    root: str


@dataclasses.dataclass(frozen=True)
class Module:
    computations: dict[str, Computation]
    entry: str
    devices: int


def read(text: str) -> Module:
    """Reads the text of a module. Raises InputError for text that is not one."""
    computations: dict[str, Computation] = {}
    entry, name, inside, root = "", "", {}, ""
    for line in text.splitlines():
        stripped = line.strip()
        if line[:1] in ("%", "E") and stripped.endswith("{"):
            head = re.match(r"(ENTRY )?%?([\w.\-]+)", line)
            name, inside, root = head[2], {}, ""
            entry = name if head[1] else entry
        elif stripped == "}" and name:
            computations[name] = Computation(inside, root)
            name = ""
        elif name and " = " in line:
            found = _instruction(stripped)
            inside[found.name] = found
            root = found.name if stripped.startswith("ROOT ") else root
    devices = re.search(r"num_partitions=(\d+)", text[: text.find("\n\n") + 1] or text)
    if not entry:
        raise InputError("this is not the text of a compiled program: it has no ENTRY computation")
    return Module(computations, entry, int(devices[1]) if devices else 1)


def _instruction(line: str) -> Instruction:
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    end = _balanced(rest, 0) if rest.startswith("(") else rest.index(" ")
    shapes, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    end = _balanced(rest, start)
    inner, opcode = rest[start + 1 : end - 1], rest[:start]
    leaf = opcode in ("constant", "parameter")
    operands = () if leaf else tuple(re.findall(r"%([\w.\-]+)", inner))
    return Instruction(
        name.lstrip("%"), _shapes(shapes), opcode, operands, rest[end:].lstrip(", "), inner if leaf else ""
    )


def _balanced(text: str, start: int) -> int:
    """Returns the place after the bracket that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.end()
    raise InputError(f"unbalanced brackets in the compiled program: {text[:80]}")


def _shapes(text: str) -> tuple[Shape, ...]:
    found = []
    for dtype, dims, layout in re.findall(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?", text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        found.append(Shape(dtype, sizes, int(space[1]) if space else 0))
    return tuple(found)
