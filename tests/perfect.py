"""Made-up examples of the benchmark's nine tasks with their gold, and the predictions that agree with it."""

import pathlib

from jxstilts import tasks
from jxstilts.eval import submission

SIZES = {"xnli": 6, "pawsx": 5, "udpos": 3, "panx": 3, "xquad": 4, "mlqa": 4, "tydiqa": 4, "bucc2018": 4, "tatoeba": 5,
         "xcopa": 4, "mewslix": 3, "lareqa": 3}  # fmt: skip
SENTENCES = {
    "udpos": [["NOUN", "VERB"], [], ["ADV"]],
    "panx": [["B-PER", "I-PER", "O"], ["O"], ["B-LOC", "B-ORG"]],
}
WORDS = ["tower", "river of light", "1889", "42 km"]


def examples_of(task, language):
    """A few made-up examples with gold, in the form of the task's type."""
    spec, size = tasks.get(task), SIZES[task]
    if task == "bucc2018":
        ids = [(f"{language}-{i}", f"en-{9 - i}") for i in range(size)]
        return {"source": [], "target": [], "gold": ids}
    if task == "tatoeba":
        english = ["b", "d", "a", "e", "c"]
        return {
            "source": [{"id": str(i), "text": f"{language} {i}"} for i in range(size)],
            "target": [{"id": str(i), "text": english[i]} for i in range(size)],
            "gold": [(str(i), str(i)) for i in range(size)],
        }
    if spec.type == "embedding":
        right = [[f"{code}_{i}_0" for code in ("de", "en", language)] for i in range(size)]
        right = [names[:1] if spec.one_right else list(dict.fromkeys(names)) for names in right]
        ids = [f"{language}-{i}" for i in range(size)]
        query = [{"id": name, "text": name} for name in ids]
        return {"query": query, "gold": [(name, one) for name, found in zip(ids, right, strict=True) for one in found]}
    rows = [{"id": f"{language}-{i}"} for i in range(size)]
    for i, row in enumerate(rows):
        if spec.type == "classification":
            row["label"] = i % len(spec.labels)
        elif spec.type == "choice":
            row["label"] = i % spec.choices
        elif spec.type == "tagging":
            row["tags"] = SENTENCES[task][i]
        else:
            context = f"{' '.join(WORDS)} {i}"
            row |= {"question": "?", "context": context}
            row["answers"] = [{"text": WORDS[i], "start": context.index(WORDS[i])}]
    return rows


def perfect(task, examples):
    """The gold answers as predictions."""
    if task == "bucc2018":
        return [(a, b, 1.5) for a, b in examples["gold"]]
    if task == "tatoeba":
        return {b: a for a, b in examples["gold"]}
    if tasks.get(task).type == "embedding":
        found = {query: [] for query, _ in examples["gold"]}
        for query, candidate in examples["gold"]:
            found[query].append(candidate)
        return {query: [*names, "xx_9_9"] for query, names in found.items()}
    field = {"tagging": "tags", "span": "answers"}.get(tasks.get(task).type, "label")
    return {row["id"]: row[field][0]["text"] if field == "answers" else row[field] for row in examples}


def folder_of(benchmark, folder: pathlib.Path) -> pathlib.Path:
    """Writes labels/ and predictions/ that agree with them: all tasks of a benchmark, in all their languages."""
    for entry in benchmark.entries:
        for language in entry.languages:
            examples = examples_of(entry.task, language)
            submission.write_labels(folder / "labels", entry.task, entry.split, language, examples)
            found = perfect(entry.task, examples)
            submission.write(folder / "predictions", entry.task, entry.split, language, examples, found)
    return folder
