"""Imports go down only: walks the package's import graph and holds it against the floors of the house."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parent.parent / "jxstilts"
FLOORS = {
    "runtime": 0, "pages": 0, "config": 0, "rooms": 0, "roll": 0, "processes": 0,
    "mesh": 1, "checkpoint": 1, "tracking": 1, "lease": 1, "hlo": 1,
    "readers": 1, "data": 2, "forms": 2.2, "tasks": 2.3, "models": 2.5,
    "train": 3, "eval": 3,
    "study": 4, "report": 4,
    "check": 5,
    "cli": 6,
    "miniworld": 1,
}  # fmt: skip
# Floors on which rooms stand beside each other without importing each other. On floor 0 the others use runtime's
# errors, and processes stands on roll;
# on floor 1 checkpoint, hlo, lease, mesh and tracking stand alone.
ALLOWED = {
    ("config", "runtime"),
    ("rooms", "runtime"),
    ("roll", "runtime"),
    ("processes", "runtime"),
    ("processes", "roll"),
}


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "jxstilts" and len(parts) > 1 and not parts[1].startswith("__") else None


def imports(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "jxstilts":
                yield from (f"jxstilts.{alias.name}" for alias in node.names)


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        yield path, name.removesuffix(".__init__")


def test_every_room_has_a_floor():
    rooms = {room(name) for _, name in modules()} - {None}
    assert rooms <= set(FLOORS)


def test_imports_go_down_only():
    wrong = []
    for path, name in modules():
        mine = room(name)
        for target in imports(path):
            other = room(target)
            if mine is None or other is None or mine == other or (mine, other) in ALLOWED:
                continue
            if other not in FLOORS or FLOORS[other] >= FLOORS[mine]:
                wrong.append(f"{name} (floor {FLOORS[mine]}) imports {target}")
            if other == "miniworld" and mine != "cli":
                wrong.append(f"{name} imports the miniature world")
    assert not wrong, "\n".join(wrong)


def test_no_tensorflow_no_private_jax_no_torch():
    wrong = []
    for path, name in modules():
        for target in imports(path):
            if target.split(".")[0] == "tensorflow" or target.startswith("jax._src"):
                wrong.append(f"{name} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_files_hold_one_subject():
    long = [f"{path}: {count}" for path, _ in modules() if (count := len(path.read_text().splitlines())) > 420]
    assert not long, long
