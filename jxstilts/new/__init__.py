"""Starting files: `jxstilts new KIND NAME` writes a study, a task, a family or an objective that runs as it is.

The other modules of this folder are those files, with names that stand for the user's own.
"""

import importlib.resources
import pathlib

from jxstilts import runtime, tasks
from jxstilts.arguments import KINDS
from jxstilts.models.families import ROOM
from jxstilts.runtime import InputError, suggest
from jxstilts.train import objectives

NEXT = {  # what to do with it
    "study": """jxstilts world data --size=tiny            # data in the benchmark's formats; yours: docs/data.md
jxstilts plan --config={path}
jxstilts run --config={path} --workdir=runs/{name}""",
    "task": """export JXSTILTS_TASKS={path}               # every command knows the task by its name
jxstilts tasks
{path} says how its data look; a study takes it as grid.intermediates or grid.targets: docs/tutorial.md""",
    "family": """export JXSTILTS_FAMILIES={path}
jxstilts models
a study takes it by --config.model.family={name} --config.model.preset=tiny""",
    "objective": """export JXSTILTS_OBJECTIVES={path}
jxstilts config phases.NAME.tasks.NAME.options   # its options
a study takes it by --config.phases.PHASE.objectives.{name}.streams=TASK""",
}


def write(kind: str, name: str) -> str:
    """Writes NAME.py and returns what to do next.

    name: a Python name, after a folder or not. Raises InputError for an unknown kind, a name that is none or is taken,
    and a file that is there already.
    """
    if kind not in KINDS:
        raise InputError(suggest("kind of starting file", kind, KINDS))
    path = pathlib.Path(name if name.endswith(".py") else f"{name}.py")
    if not path.stem.isidentifier() or path.stem.startswith("_"):
        raise InputError(f"{name!r:.80}: give a name of letters, digits and _, such as my_{kind}")
    taken = {"task": tasks.names, "family": ROOM.names, "objective": objectives.names}
    if kind in taken and path.stem in taken[kind]():
        raise InputError(f"the name {path.stem!r} is taken by a known {kind}; give another")
    text = importlib.resources.files(__name__).joinpath(f"{kind}.py").read_text(encoding="utf-8")
    text = text.replace(f"my_{kind}", path.stem).replace(f"MY_{kind.upper()}", path.stem.upper())
    runtime.make_folder(path.absolute().parent, "the folder of NAME")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"{path} exists; give another name") from error
    return f"{path}: a starting {kind}. Next:\n{NEXT[kind].format(path=path, name=path.stem)}"
