"""Labels of a head and labels of a task: the same names, in an order, and perhaps in a case, of their own."""

from collections.abc import Sequence

from jxstilts.runtime import InputError, shown_list


def match(head: Sequence[str], task: Sequence[str], where: str) -> list[int]:
    """Returns the place among the task's labels of each of a head's, by name.

    Upper and lower case count only where a list has names that differ in nothing else. Raises InputError, beginning
    with `where`, with both lists, unless each name of the one is a name of the other.
    """
    fold = str.casefold if all(len(set(map(str.casefold, each))) == len(each) for each in (head, task)) else str
    places = {fold(label): place for place, label in enumerate(task)}
    if {fold(label) for label in head} != places.keys() or len(head) != len(task):
        raise InputError(
            f"{where}: the head predicts {len(head)} labels, {shown_list(head)}; the task has {len(task)}, "
            f"{shown_list(task)}; labels are matched by name, so give a head with the task's (id2label of config.json)"
        )
    return [places[fold(label)] for label in head]
