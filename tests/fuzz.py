"""Mutations of valid files, and the loop that feeds them to a reader: what it may do with one, and how many there were.

A plan is a short list of (mutation, a, b); a and b say where and what, modulo what there is. So a plan fits any file,
and hypothesis shortens the one that fails.
"""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import time
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from jxstilts.runtime import InputError

SECONDS = 20  # wall time of one input; the slowest takes a hundredth of it on a free core
LONGEST = 4000  # characters of a message
TYPED = 1_000_000  # of one about what a user has typed, which may be quoted whole

# Texts that readers may trip over: line ends that are none, invisible and half characters, names that are paths.
ODD = (
    b"\xe2\x80\xa8", b"\xc2\x85", b"\x1d", b"\x00", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\n\n", b"\t", b" ",
    b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98", b'"', b'""', b"\\", b"'", b"|", b",", b"-", b"{", b"]",
    b"\xc2\xa0", b"\xe2\x80\x8f", b"e\xcc\x81", b"\xf0\x9f\x98\x80", b"\xef\xbc\x91", b"\x1b[31m", b"%s{x}", b"-1",
    b"1e999", b"9" * 5000, b"NaN", b"null", b"../../evil", b"/etc/passwd", b"</s>", b"x" * 70_000,
)  # fmt: skip
NUMBERS = (b"\x00" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\x00\x00\x00\x80", b"\x01", b"\x80" * 12, b"\x7f")
# Values of another type or size, as they stand in a JSON text.
VALUES = (
    "null", "true", "false", "0", "1", "-1", "2", "1.0", "1.5", "1e999", "NaN", "-Infinity", "9" * 30, "9" * 5000,
    "1000000000", '""', '" "', '"0"', '"x"', '"\\ud800"', '"\\u2028"', '"\\u0000"', '"a\\nb\\tc"', '"\\u001b[31m"',
    '"../../evil"', '"/etc/passwd"', '"' + "x" * 70_000 + '"', "[]", "{}", "[[]]", "[null]", '[1, "a"]', '{"a": 1}',
    '{"": ""}', "[" * 100 + "]" * 100, "[" * 100_000 + "]" * 100_000, '{"a":' * 20_000 + "1" + "}" * 20_000,
)  # fmt: skip
MARK = "\u0001mark\u0001"


def _place(data: bytes, a: int) -> int:
    return a * 7919 % (len(data) + 1)


def _flip(data, a, b):
    at = _place(data, a)
    return data[:at] + bytes(byte ^ (1 << b % 8) for byte in data[at : at + 1]) + data[at + 1 :]


def _insert(data, a, b):
    at = _place(data, a)
    return data[:at] + ODD[b % len(ODD)] + data[at:]


def _overwrite(data, a, b):
    at, number = _place(data, a), NUMBERS[b % len(NUMBERS)]
    return data[:at] + number + data[at + len(number) :]


def _truncate(data, a, b):
    return data[: _place(data, a)]


def _cut(data, a, b):
    at = _place(data, a)
    return data[:at] + data[at + 1 + b % 40 :]


def _double(data, a, b):
    at = _place(data, a)
    return data[: at + b % 40] + data[at:]


def _nothing(data, a, b):
    return (b"", b"\n", b" \t\r\n", b"\xef\xbb\xbf", b"\x00" * 16)[b % 5]


def _lines(change):
    def mutate(data, a, b):
        rows = data.split(b"\n")
        change(rows, a % len(rows), b)
        return b"\n".join(rows)

    return mutate


def _swap_lines(rows, at, b):
    other = b % len(rows)
    rows[at], rows[other] = rows[other], rows[at]


LINES = (
    lambda rows, at, b: rows.pop(at),
    lambda rows, at, b: rows.insert(b % len(rows), rows[at]),
    _swap_lines,
    lambda rows, at, b: rows.insert(at, (b"", b" ", b"\t", b"\r")[b % 4]),
    lambda rows, at, b: rows.insert(at, ODD[b % len(ODD)]),
)


def _cells(change):
    def mutate(data, a, b):
        rows = data.split(b"\n")
        at = a % len(rows)
        cells = rows[at].split(b"\t")
        change(cells, b % len(cells), b)
        rows[at] = b"\t".join(cells)
        return b"\n".join(rows)

    return mutate


def _set_cell(cells, at, b):
    cells[at] = ODD[b // 7 % len(ODD)]


CELLS = (
    lambda cells, at, b: cells.pop(at),
    lambda cells, at, b: cells.insert(at, cells[at]),
    lambda cells, at, b: cells.append(cells.pop(at)),
    _set_cell,
)


def nodes(value) -> Iterator[tuple]:
    """Yields (parent, key) of every value inside a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from nodes(value[key])


def _set_node(parent, key, b):
    parent[key] = MARK


def _drop_node(parent, key, b):
    del parent[key]


def _repeat_node(parent, key, b):
    if isinstance(parent, list):
        parent.insert(b % (len(parent) + 1), parent[key])
    else:
        parent[f"{key}{b % 3 or ''}"] = parent.pop(key)


def _trade_node(parent, key, b):
    other = list(parent)[b % len(parent)] if isinstance(parent, dict) else b % len(parent)
    parent[key], parent[other] = parent[other], parent[key]


def _json(change):
    """Changes one value of a JSON text, or of one of its lines."""

    def mutate(data, a, b):
        rows, at = [data], 0
        with contextlib.suppress(ValueError, RecursionError):
            try:
                document = json.loads(data)
            except ValueError:
                rows = data.split(b"\n")
                at = a % len(rows)
                document = json.loads(rows[at])
            places = list(nodes(document))
            if places:
                parent, key = places[a * 31 % len(places)]
                change(parent, key, b)
                text = json.dumps(document, ensure_ascii=False).replace(json.dumps(MARK), VALUES[b % len(VALUES)])
                rows[at] = text.encode("utf-8", "surrogatepass")
        return b"\n".join(rows)

    return mutate


def _twice_node(data, a, b):
    """Writes a key twice with two values, which no parsed object can show."""
    found = list(re.finditer(rb'"[^"\\]*": ', data))
    if not found:
        return data
    one = found[a % len(found)]
    return data[: one.start()] + one.group() + VALUES[b % 20].encode() + b", " + data[one.start() :]


BYTES = (_flip, _flip, _insert, _insert, _overwrite, _truncate, _cut, _double, _nothing)
TEXT = BYTES + tuple(map(_lines, LINES)) + tuple(map(_cells, CELLS))
NODES = tuple(map(_json, (_set_node, _set_node, _set_node, _drop_node, _repeat_node, _trade_node)))
JSON = BYTES + NODES + (_twice_node,) + tuple(map(_lines, LINES))

Plan = list[tuple[int, int, int]]
PLANS = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)),
                 min_size=1, max_size=3)  # fmt: skip


def mutate(data: bytes, plan: Plan, kinds: tuple) -> bytes:
    """Returns the data after the mutations of a plan, of these kinds."""
    for which, a, b in plan:
        data = kinds[which % len(kinds)](data, a, b)
    return data


def put(file: pathlib.Path, data: bytes, plan: Plan) -> None:
    """Writes a file; one plan in 256 finds a folder in its place instead, and one no file."""
    odd = plan[0][1] % 256
    if file.is_dir():
        shutil.rmtree(file)
    if odd == 77:
        file.unlink(missing_ok=True)
        file.mkdir()
    elif odd == 78:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(data)


class Hang(BaseException):
    """An input took too long; no handler of the package takes it for something else."""


@contextlib.contextmanager
def limit(seconds: float = SECONDS) -> Iterator[None]:
    """Raises Hang inside the block after some seconds."""

    def stop(number, frame):
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_message(error: InputError, named: str, longest: int = LONGEST) -> None:
    """A refusal is one line that can be shown, not too long, and says which file (or key) is meant."""
    text = str(error)
    assert named in text, f"{named!r} is not named: {text!r}"
    assert text.isprintable() or not re.search(r"[\x00-\x08\n\r\x0b-\x1f\x7f\x85\u2028\u2029]", text), repr(text)
    assert len(text) < longest, f"{len(text)} characters: {text:.200}"


def run(name: str, count: int, attempt: Callable[[Plan], object], named: str, strategy=PLANS,
        longest: int = LONGEST) -> dict[str, int]:  # fmt: skip
    """Feeds `count` mutations to `attempt`, which raises InputError or checks what was made of them.

    named: what a refusal must name, in less than `longest` characters. Prints how many there were; the seed is the
    name's checksum.
    """
    tally = {"inputs": 0, "refused": 0}

    @seed(zlib.crc32(name.encode()))
    @settings(max_examples=count, deadline=None, database=None, print_blob=False, phases=[Phase.generate, Phase.shrink],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def feed(plan):
        tally["inputs"] += 1
        with limit():
            try:
                attempt(plan)
            except InputError as error:
                check_message(error, named, longest)
                tally["refused"] += 1

    began = time.monotonic()
    feed()
    assert tally["inputs"] >= count
    print(f"fuzz {name}: {tally['inputs']} inputs, {tally['refused']} refused, {time.monotonic() - began:.1f} s")
    return tally


def shares(fast: int, slow: int) -> pytest.MarkDecorator:
    """Parametrises a test by how many inputs it takes: a few always, many in `make test-all`."""
    return pytest.mark.parametrize("count", [fast, pytest.param(slow, marks=pytest.mark.slow)])
