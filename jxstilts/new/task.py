"""my_task: one text, or two, and a label. Its name becomes known by JXSTILTS_TASKS=my_task.py.

Its data are lines of two columns, a text and a label, with a tab between:

    data/my_task/train-en.tsv, data/my_task/dev-en.tsv, data/my_task/dev-de.tsv, ...

    the dog ran home<TAB>positive
    the dog never ran home<TAB>negative
"""

import pathlib

from jxstilts.readers import checked, class_id, read_lines, rows_by_place
from jxstilts.tasks import Recipe, TaskSpec

LABELS = ("positive", "negative")


def read(path: pathlib.Path) -> list[dict]:
    """Reads one file. What an example of a form is stands at its class in jxstilts/forms/.

    `checked` and the readers of `jxstilts.readers` refuse a damaged file with its name and line.
    """
    examples = []
    for number, (text, label) in rows_by_place(path, read_lines(path), (2,), "a text and a label"):
        example = {"id": str(number), "text_a": text, "text_b": None}  # text_b: the second text of a pair
        examples.append(example | {"label": class_id(label, LABELS, f"{path}:{number}")})
    return checked(examples, "label", path)


MY_TASK = TaskSpec(
    name="my_task",
    type="classification",  # the form: also choice, tagging, span, embedding, ...
    languages=("en", "de", "ru", "tr"),  # codes of `jxstilts languages`, "en" first
    # Paths below data_dir. "train" in English to be trained on, "dev" to choose a checkpoint, the others to evaluate.
    splits={"train": ("my_task/train-{language}.tsv",), "dev": ("my_task/dev-{language}.tsv",)},
    read=read,
    labels=LABELS,
    metric="accuracy",  # a file of jxstilts/eval/metrics/
    train_task="my_task",  # the English task that it is trained on: itself
    # How it is trained where the config says nothing.
    recipe=Recipe(batch_size=32, max_length=64, epochs=3, source="my_task.py"),
    description="Is the text positive or negative?",
    url="",
    licence="",
    # parallel=True,  # where the same id is the same item in every language: differences are then paired
)
