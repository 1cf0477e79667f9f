"""Forms are found by name, the code around them names none of them, and one more is one file outside the package."""

import ast
import json
import pathlib

import jax
import numpy as np
import pytest
import samples

import jxstilts
from jxstilts import cli, config, forms, study, tasks, tracking
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.models.model import HeadSpec, Model, make_config
from jxstilts.runtime import InputError

PACKAGE = pathlib.Path(jxstilts.__file__).parent
ASKED = ("type", "kind", "form")  # what holds the name of a form


def compared(source: str, names: set[str]) -> list[str]:
    """Returns the comparisons of a source text that ask whether something is a form of these names."""

    def constants(node: ast.AST) -> set:
        parts = {ast.Dict: "keys", ast.Tuple: "elts", ast.List: "elts", ast.Set: "elts"}
        inner = getattr(node, parts[type(node)]) if type(node) in parts else [node]
        return {part.value for part in inner if isinstance(part, ast.Constant) and isinstance(part.value, str)}

    def asks(node: ast.AST) -> bool:
        return (getattr(node, "attr", None) or getattr(node, "id", None)) in ASKED

    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(constants(side) & names for side in sides) and any(map(asks, sides)):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Match) and asks(node.subject):
            values = {inner.value for case in node.cases for inner in ast.walk(case.pattern)
                      if isinstance(inner, ast.Constant)}  # fmt: skip
            if values & names:
                found.append(f"match {ast.unparse(node.subject)}")
    return found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("x = spec.type == 'span'", 1),
        ("x = 'span' != task.form", 1),
        ("y = [1 for s in t if s.type not in ('tagging', 'other')]", 1),
        ("if kind in {'text': 1}: pass", 1),
        ("match spec.type:\n    case 'span' | 'x': pass", 1),
        ("x = spec.type == 'dual'", 0),
        ("x = spec.name == 'text'", 0),
        ("TaskSpec(type='span')\nlengths = {'span': 384}[spec.type]", 0),
    ],
)
def test_a_comparison_with_a_forms_name_is_seen(source, count):
    assert len(compared(source, set(forms.names()))) == count


def test_no_code_outside_the_forms_compares_with_a_forms_name():
    """Whatever differs between forms is asked of the form."""
    names = set(forms.names())
    found = [
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in ("forms", "miniworld")
        for text in compared(path.read_text(), names)
    ]
    assert not found, "\n".join(found)


def test_every_form_says_who_it_is():
    names = forms.names()
    assert names == sorted(names) and {tasks.get(name).type for name in tasks.names()} <= set(names)
    for name in names:
        form = forms.get(name)
        kinds = {"value", "index", "group", "token", "target"}
        assert form.name == name and {field.kind for field in form.fields} <= kinds
        assert form.grouped == (name in ("choice", "embedding")) and forms.get(name) is form


def test_an_unknown_form_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown form 'taging'; did you mean 'tagging'.*named in JXSTILTS_FORMS"):
        forms.get("taging")


# --- a form, and a task of it, from two files outside the package ----------------------------------------------------

RATING = '''
"""Rating: how many stars does a text give? One number is learned, not a class for each."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxstilts.forms.base import Collector
from jxstilts.forms.classification import Classification
from jxstilts.models.heads import HeadBase, first_tokens


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    """A linear layer on the first token; the loss is the squared difference from the stars."""

    def init(self, key):
        kernel = 0.1 * jax.random.normal(key, (self.config.width,))
        return {"kernel": nn.LogicallyPartitioned(kernel, ("embed",)), "bias": jnp.full((), 1.0)}

    def predict(self, params, hidden, batch):
        own = params["heads"][self.spec.name]
        return {"stars": first_tokens(hidden, batch).astype(jnp.float32) @ own["kernel"] + own["bias"]}

    def loss(self, params, hidden, batch, rng=None):
        error = jnp.square(self.predict(params, hidden, batch)["stars"] - batch["labels"])
        return {"loss": ((error * batch["weights"]).sum(), batch["weights"].sum())}


class Stars(Collector):
    def prepare(self):
        self.found = [0] * len(self.given.features)

    def add(self, index, array):
        self.found[index] = int(array.round().clip(0, len(self.given.labels) - 1))

    def finish(self):
        return self.found


class Rating(Classification):
    name = "rating"
    output = "stars"

    def head_class(self):
        return Head

    def collector(self, given):
        return Stars(given)


FORM = Rating()
'''
STARS = """
from jxstilts.readers import checked, class_id, read_json_lines
from jxstilts.tasks import Recipe, TaskSpec

LABELS = ("none", "one", "two")


def read(path):
    examples = [
        {"id": row["id"], "text_a": row["text"], "text_b": None, "label": class_id(row["label"], LABELS, str(path))}
        for _, row in read_json_lines(path, ("id", "text", "label"))
    ]
    return checked(examples, "label", path)


TASK = TaskSpec(
    name="stars", type="rating", languages=("en", "de"),
    splits={split: ("stars/%s-{language}.jsonl" % split,) for split in ("train", "dev")},
    read=read, labels=LABELS, metric="accuracy", train_task="stars",
    recipe=Recipe(batch_size=16, max_length=16, epochs=4, learning_rate=3e-3, source="this test"),
    description="How many stars?", url="", licence="",
)
"""
CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study

def get_config(arg=None):
    return complete(Study, {
        "study": "stars", "data_dir": "data", "compile_cache": arg or "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.0, "attention_dropout": 0.0},
        "tokenizer": {"path": "words"},
        "phases": {"stars": {
            "tasks": {"stars": {}}, "log_every": 4,
            "select": {"metric": "accuracy", "rows": 60, "every": 8},
        }},
        "evaluations": {},
    })
"""
WORDS = ("cat", "red", "blue")  # the first word says how many stars


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder with a form, a task of it and its data, which the environment names."""
    files = {"rating.py": RATING, "stars.py": STARS, "config.py": CONFIG}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "data/stars").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train-en", 240), ("dev-en", 60), ("dev-de", 30)):
        with (tmp_path / f"data/stars/{name}.jsonl").open("w") as file:
            for i in range(count):
                stars, rest = int(rng.integers(3)), rng.choice(samples.WORDS, 4)
                row = {"id": str(i), "text": " ".join([WORDS[stars], *rest]), "label": ("none", "one", "two")[stars]}
                file.write(json.dumps(row) + "\n")
    tokenizers.save(samples.word_tokenizer(), tmp_path / "words")
    monkeypatch.setenv("JXSTILTS_FORMS", str(tmp_path / "rating.py"))
    monkeypatch.setenv(tasks.OUTSIDE, str(tmp_path / "stars.py"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_form_of_ones_own_is_evaluated(outside):
    """What comes out is the head's number, rounded, of one example at a time."""
    assert "rating" in forms.names() and tasks.get("stars").form is forms.get("rating")
    words, task = tokenizers.load(outside / "words"), tasks.get("stars")
    model = Model(make_config("xlmr", "tiny", vocab_size=len(words)), (HeadSpec("stars", "rating", task.labels),))
    params = jax.jit(model.init)(jax.random.key(0))
    data = {language: tasks.load("stars", "data", "dev", language) for language in ("en", "de")}
    results = list(Evaluator(model, params, words, Options(max_length=16)).languages(task, data.items()))
    assert [result.n for result in results] == [60, 30]
    for result in results:
        examples = data[result.language]
        for example in examples[:5]:
            ids = np.array([words(example["text_a"])["input_ids"]], np.int32)
            batch = {"tokens": ids, "segments": np.ones_like(ids), "positions": np.arange(ids.shape[1])[None],
                     "first": np.zeros((1, 1), np.int32)}  # fmt: skip
            stars = float(model.predict(params, "stars", batch)["stars"][0, 0])
            assert result.predictions[example["id"]] == round(min(max(stars, 0), 2))
        right = np.mean([result.predictions[example["id"]] == example["label"] for example in examples])
        assert result.metrics["accuracy"] == pytest.approx(100 * right)
        most = np.bincount([example["label"] for example in examples]).max()
        assert result.baseline["accuracy"] == pytest.approx(100 * most / len(examples))
    with pytest.raises(InputError, match="max_length: the protocol 'authors' has none for the form 'rating'; give it"):
        Evaluator(model, params, words).evaluate(task, data["en"])


def test_a_form_of_ones_own_is_trained(outside, compile_cache):
    made = study.from_config(config.load([f"--config={outside / 'config.py'}:{compile_cache}"]))
    study.run(made, outside / "run", devices=jax.devices()[:1])
    rows = tracking.read_rows(outside / "run/phases/stars/metrics.jsonl")
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert np.mean(losses[-3:]) < losses[0] / 2
    dev = [row["accuracy"] for row in rows if row["kind"] == "dev"]
    assert len(dev) == 60 // 8 + 1 and max(dev) > 60  # a third are right by chance
    meta = json.loads((outside / "run/phases/stars/best/bundle.json").read_text())
    assert [(head["name"], head["type"]) for head in meta["heads"]] == [("stars", "rating")]
    asked = [
        "evaluate",
        f"--model={outside}/run/phases/stars/best",
        "--tasks=stars",
        "--languages=en,de",
        "--split=dev",
    ]
    asked += [f"--data_dir={outside}/data", "--max_length=16", f"--out={outside}/scores"]
    assert cli.main(asked) == 0
    rows = [json.loads(line) for line in (outside / "scores/results.jsonl").read_text().splitlines()]
    assert {row["language"]: row["value"] > 60 for row in rows} == {"en": True, "de": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RATING.replace("Collector\n", "Colector\n", 1), r"rating\.py:10: ImportError: .*Colector"),
        (RATING.replace("class Stars(", "class Stars(("), r"rating\.py:\d+: SyntaxError"),
        (None, r"JXSTILTS_FORMS: '.*rating\.py' is no Python file"),
    ],
)
def test_a_wrong_form_file_is_one_clear_error(tmp_path, monkeypatch, content, message):
    if content is not None:
        (tmp_path / "rating.py").write_text(content)
    monkeypatch.setenv("JXSTILTS_FORMS", str(tmp_path / "rating.py"))
    with pytest.raises(InputError, match=message):
        forms.get("rating")


def test_a_form_file_may_not_take_a_name_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "span.py").write_text(RATING)
    monkeypatch.setenv("JXSTILTS_FORMS", str(tmp_path / "span.py"))
    with pytest.raises(InputError, match=r"JXSTILTS_FORMS: .*span\.py: there is a form named 'span': rename the file"):
        forms.names()
