"""Parts that are found by name: each is one module of a folder of the package, or one file of the user's own.

Whoever adds a form, a family or an objective adds one file and changes no other. A file outside the package is named
in the room's environment variable (several as in PATH); the stem of its name is the name of the part.
"""

import dataclasses
import functools
import importlib
import importlib.util
import os
import pathlib
import pkgutil
import sys
import traceback
from types import ModuleType

from jxstilts.runtime import InputError, suggest

# Modules of a room that are no parts: what its parts have in common.
SHARED = ("answers", "base", "checks", "files", "labels", "texts")


@dataclasses.dataclass(frozen=True)
class Room:
    """A folder of parts.

    package: its dotted name. kind: what a part is called in messages. variable: of the environment, see the module.
    """

    package: str
    kind: str
    variable: str

    def names(self) -> list[str]:
        """Returns the names of all parts, sorted; nothing is imported but the folder itself."""
        return sorted({*_inside(self.package), *self._outside()})

    def get(self, name: str, where: str = "") -> ModuleType:
        """Returns a part's module. Raises InputError with the known and the nearest name; `where` begins it."""
        if name in _inside(self.package):
            return importlib.import_module(f"{self.package}.{name}")
        outside = self._outside()
        if name not in outside:
            hint = f"; files of your own are named in {self.variable}"
            raise InputError(f"{where}{': ' if where else ''}{suggest(self.kind, name, self.names())}{hint}")
        return run_file(outside[name], self.variable)

    def _outside(self) -> dict[str, str]:
        paths = filter(None, os.environ.get(self.variable, "").split(os.pathsep))
        found = {pathlib.Path(path).stem: path for path in paths}
        for name, path in found.items():
            if name in _inside(self.package):
                raise InputError(f"{self.variable}: {path}: there is a {self.kind} named {name!r}: rename the file")
        return found


@functools.cache
def _inside(package: str) -> frozenset[str]:
    path = importlib.import_module(package).__path__
    return frozenset(module.name for module in pkgutil.iter_modules(path) if module.name not in SHARED)


@functools.cache
def run_file(path: str, variable: str) -> ModuleType:
    """Runs a Python file from outside the package, once, and returns its module.

    variable: of the environment, which names the file. Raises InputError with the line of the file that is wrong.
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix != ".py" or not file.is_file():
        raise InputError(f"{variable}: {path!r} is no Python file; it takes files, separated by {os.pathsep!r}")
    name = f"{variable.lower()}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (
        ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, SyntaxError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        if isinstance(error, SyntaxError) and error.filename == spec.origin:
            lines.append(error.lineno)
        where = ":".join(map(str, [path, *lines[-1:]]))
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"{where}: {kind}{error}") from error
    return module
