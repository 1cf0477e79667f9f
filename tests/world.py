"""A toy data_dir in the real formats, for tests of training and studies: few words, labels that can be learned."""

import json
import pathlib

import numpy as np

WORDS = "red blue dog cat house tree runs sleeps near under big small one two".split()
GERMAN = dict(
    zip(WORDS, "rot blau hund katze haus baum rennt schläft nahe unter groß klein eins zwei".split(), strict=True)
)
LABELS = ("contradiction", "entailment", "neutral")


def sentence(rng: np.random.Generator, low: int = 3, high: int = 9) -> list[str]:
    return list(rng.choice(WORDS, rng.integers(low, high)))


def german(words: list[str]) -> list[str]:
    return [GERMAN.get(word, word) for word in words]


def write(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes the data_dir: text, mnli, qqp, commonsenseqa, ccg, xnli, tydiqa, xquad, tatoeba; English and German."""
    rng = np.random.default_rng(seed)

    def put(name: str, text: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    lines = [sentence(rng) for _ in range(300)]
    put("text/common_voice/en.txt", "".join(" ".join(line) + "\n" for line in lines))
    put("text/common_voice/de.txt", "".join(" ".join(german(line)) + "\n" for line in lines))

    def nli() -> tuple[list[str], list[str], str]:
        """The label is the hypothesis' first word: yes, no or maybe."""
        label = int(rng.integers(3))
        return sentence(rng), [("no", "yes", "maybe")[label], *sentence(rng)], LABELS[label]

    for split, count in (("train", 160), ("dev", 24)):
        rows = [nli() for _ in range(count)]
        keys = ("sentence1", "sentence2", "gold_label")
        text = [json.dumps(dict(zip(keys, (" ".join(a), " ".join(b), label), strict=True))) for a, b, label in rows]
        put(f"intermediate/mnli/{split}.jsonl", "\n".join(text) + "\n")
    rows = [nli() for _ in range(15)]
    put("xtreme/xnli/dev-en.tsv", "".join(f"{' '.join(a)}\t{' '.join(b)}\t{c}\n" for a, b, c in rows))
    put("xtreme/xnli/dev-de.tsv", "".join(f"{' '.join(german(a))}\t{' '.join(german(b))}\t{c}\n" for a, b, c in rows))

    def squad(count: int, translate) -> str:
        paragraphs = []
        for i in range(count):
            words = translate(sentence(rng, 8, 40))
            place = int(rng.integers(1, len(words)))
            context = " ".join(words)
            start = len(" ".join(words[:place])) + 1
            answer = {"text": words[place], "answer_start": start}
            qa = {"id": f"q{i}", "question": f"what comes after {words[place - 1]}", "answers": [answer]}
            paragraphs.append({"context": context, "qas": [qa]})
        return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}, ensure_ascii=False)

    put("xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json", squad(60, list))
    put("xtreme/xquad/xquad.en.json", squad(8, list))
    put("xtreme/xquad/xquad.de.json", squad(8, german))
    pairs = [sentence(rng) for _ in range(12)]
    put("xtreme/tatoeba/tatoeba.deu-eng.eng", "".join(" ".join(line) + "\n" for line in pairs))
    put("xtreme/tatoeba/tatoeba.deu-eng.deu", "".join(" ".join(german(line)) + "\n" for line in pairs))

    for split, count in (("train", 60), ("dev", 12)):
        rows = [(sentence(rng), rng.integers(2)) for _ in range(count)]
        lines = [
            f"{i}\t{i}\t{i}\t{' '.join(a)}\t{' '.join(a if same else sentence(rng))}\t{same}"
            for i, (a, same) in enumerate(rows)
        ]
        header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
        put(f"intermediate/qqp/{split}.tsv", "\n".join([header, *lines]) + "\n")
        put(f"intermediate/qqp/{split}.de.tsv", "\n".join([header, *lines[:9]]) + "\n")
        lines = []
        for i in range(count):
            choices = list(rng.choice(WORDS, 5, replace=False))
            right = int(rng.integers(5))
            stem = f"which is {choices[right]}"
            question = {"stem": stem, "choices": [{"label": "ABCDE"[j], "text": c} for j, c in enumerate(choices)]}
            lines.append(json.dumps({"id": f"c{i}", "answerKey": "ABCDE"[right], "question": question}))
        put(f"intermediate/commonsenseqa/{split}_rand_split.jsonl", "\n".join(lines) + "\n")
        lines = [" ".join(f"{word}|X|C{len(word)}" for word in sentence(rng)) for _ in range(count)]
        put(f"intermediate/ccg/{split}.txt", "\n".join(lines) + "\n")
    return folder


CONFIG = '''
"""A study of seconds: pre-train, MNLI, TyDiQA, zero-shot evaluation."""
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg=None):
    fast = {"learning_rate": 3e-3}
    return complete(Study, {
        "study": "toy",
        "data_dir": "",
        "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1},
        "tokenizer": {"vocab_size": 120, "model": "bpe", "languages": ("en", "de")},
        "phases": {
            "pretrain": {
                "tasks": {"text": {
                    "objective": "mlm", "languages": ("en", "de"), "packed": True, "batch_size": 8, "max_length": 64,
                }},
                "steps": 12, "optimizer": fast, "save_every": 5, "log_every": 3,
            },
            "mnli": {
                "init": "pretrain", "tasks": {"mnli": {"batch_size": 16, "max_length": 48}}, "epochs": 2.0,
                "optimizer": fast, "select": {"metric": "accuracy", "rows": 24, "every": 4}, "log_every": 2,
            },
            "qa": {
                "init": "mnli",
                "tasks": {"tydiqa": {
                    "batch_size": 8, "max_length": 64, "doc_stride": 24, "max_query_length": 12, "holdout": 12,
                }},
                "epochs": 1.0, "optimizer": fast, "log_every": 2,
                "select": {"metric": "major", "rows": 12, "every": 3},
            },
        },
        "evaluations": {
            "xnli": {
                "phase": "mnli", "model": "tiny", "intermediate": "none", "target": "xnli",
                "what": {"tasks": ("xnli",), "languages": ("en", "de"), "options": {"max_length": 48}},
            },
            "xquad": {
                "phase": "qa", "model": "tiny", "intermediate": "mnli", "target": "tydiqa",
                "what": {"tasks": ("xquad",), "languages": ("en", "de"), "limit": 6,
                         "options": {"max_length": 64, "doc_stride": 24, "max_query_length": 12}},
            },
            "tatoeba": {
                "phase": "mnli", "model": "tiny", "intermediate": "mnli",
                "what": {"tasks": ("tatoeba",), "languages": ("de",), "options": {"max_length": 48}},
            },
        },
    })
'''
