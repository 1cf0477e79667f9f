"""Imports go down only: walks the package's import graph and holds it against the floors of the house."""

import ast
import graphlib
import pathlib

PACKAGE = pathlib.Path(__file__).parent.parent / "jxstilts"
FLOORS = {  # of a room, or of a part of one; the longest name that fits counts
    "runtime": 0, "pages": 0, "config": 0, "rooms": 0, "roll": 0, "processes": 0, "overrides": 0, "arguments": 0,
    "mesh": 1, "checkpoint": 1, "tracking": 1, "lease": 1, "hlo": 1, "completion": 1,
    "readers": 1, "data": 2, "forms": 2.2, "tasks": 2.3, "models": 2.5,
    "models.attention": 2.1, "models.initial": 2.1, "models.layers": 2.1, "models.words": 2.1, "models.generation": 2.1,
    "models.heads": 2.1,
    "train": 3, "eval": 3,
    "study": 4, "report": 4,
    "check": 5, "new": 5,
    "api": 5.5,
    "cli": 6,
    "miniworld": 1,
}  # fmt: skip
# Floors on which rooms stand beside each other without importing each other. On floor 0 the others use runtime's
# errors, and processes stands on roll;
# on floor 1 checkpoint, hlo, lease, mesh and tracking stand alone; what models are made of stands one on the other.
ALLOWED = {
    ("config", "runtime"),
    ("config", "overrides"),
    ("overrides", "runtime"),
    ("rooms", "runtime"),
    ("roll", "runtime"),
    ("processes", "runtime"),
    ("processes", "roll"),
    ("models.layers", "models.attention"),
    ("models.layers", "models.initial"),
    ("models.heads", "models.initial"),
    ("models.heads", "models.layers"),
    ("models.heads", "models.words"),
    ("models.heads", "models.generation"),
}


def room(module: str) -> str | None:
    """The longest name in FLOORS that begins the module's, or the name of its folder."""
    parts = module.split(".")
    if parts[0] != "jxstilts" or len(parts) == 1 or parts[1].startswith("__"):
        return None
    begins = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
    return next((name for name in begins if name in FLOORS), parts[1])


def imports(path: pathlib.Path):
    """Everything that a file imports, also inside its functions: modules, not what is in them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in inside if name in NAMES]
            yield from found
            if len(found) < len(inside):
                yield node.module


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        yield path, name.removesuffix(".__init__")


NAMES = {name for _, name in modules()}


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


def test_no_file_imports_itself_in_a_circle():
    """Of all imports, those inside functions, too: a circle there is one that a reader does not see."""
    graph = {name: {target for target in imports(path) if target in NAMES} for path, name in modules()}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_what_is_a_familys_stands_in_its_file_alone():
    words = ("roberta", "lm_head", ".word_embeddings")
    found = [
        f"{name}: {word}"
        for path, name in modules()
        for word in (*words, "<s>", "</s>")[: None if (room(name) or "").startswith("models") else len(words)]
        if word in path.read_text() and not name.startswith("jxstilts.models.families.")
    ]
    assert not found, found


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
