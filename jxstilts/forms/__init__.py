"""Forms: what kind of problem a task is, one module each, found by name.

A module defines `FORM`, an object of a class derived from `base.Form`; all that a form decides stands there, and the
code around it (batching, training, evaluation, files, plans, reports) asks it. Its head, the part that is jitted, is
the module of the same name in `models/heads`, or what `Form.head_class` returns. JXSTILTS_FORMS names files with forms
of one's own, several as in PATH.
"""

from jxstilts.forms.base import Collector, Form, Given, Reading
from jxstilts.rooms import Room

__all__ = ["Collector", "Form", "Given", "Reading", "get", "names"]

ROOM = Room(__name__, "form", "JXSTILTS_FORMS")
names = ROOM.names


def get(name: str) -> Form:
    """Returns a form by name. Raises InputError with the known and the nearest name."""
    return ROOM.get(name).FORM
