"""Data files: written by hand, or a part of the miniature world."""

import json
import pathlib
import shutil


def write(root: pathlib.Path, path: str, content: str | bytes) -> pathlib.Path:
    """Writes root/path, with the line ends as given."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def part(world: pathlib.Path, folder: pathlib.Path, *patterns: str) -> pathlib.Path:
    """Copies the files of a data_dir that match, and returns the new one."""
    for pattern in patterns:
        for file in world.glob(pattern):
            copy = folder / file.relative_to(world)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return folder


def lines(*rows: dict) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def squad(*questions: tuple, context: str = "Ada was born in London.") -> str:
    """SQuAD JSON of one paragraph; a question is (id, answers as (text, start) pairs, further keys)."""
    qas = [
        {"id": i, "question": f"q {i}", "answers": [{"text": t, "answer_start": s} for t, s in answers]} | more
        for i, answers, more in questions
    ]
    articles = [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]
    return json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False)
