"""Items kept beside results: what is in them, that no row lacks them, and how the report reads them."""

import json
import types

import files
import numpy as np
import perfect
import pytest
from samples import WORDS, tiny_bundle, word_tokenizer

from jxstilts import tasks
from jxstilts.eval import evaluator, items, metrics, results
from jxstilts.models import bundle
from jxstilts.report.items import rows
from jxstilts.report.resampling import paired_bootstrap
from jxstilts.runtime import InputError

IDENTITY = {"evaluation": "e", "config_fingerprint": "f", "checkpoint_sha256": "c"}


def scored(task, language="en", spoil=lambda found: found, threshold=None):
    """A result of a task from made-up examples and (spoiled) perfect predictions."""
    examples = perfect.examples_of(task, language)
    metric = metrics.get(tasks.get(task).metric, language)
    metric = metric if threshold is None else metric.at(threshold)
    found = spoil(perfect.perfect(task, examples))
    if tasks.get(task).type == "classification":
        found = list(found.values())
    state = metric.update(found, examples)
    return types.SimpleNamespace(values=state, metrics=metric.compute(state)), examples


def without_one(found):
    """Predictions of which the first is wrong."""
    if isinstance(found, list):
        return [*found[1:], ("de-0", "en-0", 2.0), ("de-1", "en-0", 0.5)]
    first = min(found)
    value = found[first]
    wrong = (value + 1) % 3 if isinstance(value, int) else "" if isinstance(value, str) else ["O"] * len(value)
    return {**found, first: wrong}


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["xnli", "panx", "xquad", "tatoeba"])
def test_kept_items_give_the_values_of_the_rows(task, tmp_path):
    result, examples = scored(task, spoil=without_one)
    items.write(tmp_path / "kept.npz", items.of(result, examples), IDENTITY)
    kept = items.read(tmp_path / "kept.npz")
    assert kept.ids.tolist() == sorted(next(iter(result.values.values())))
    sums = {name: column.sum(keepdims=True) for name, column in kept.columns.items()}
    for name, value in result.metrics.items():
        found = items.score(tasks.get(task).metric, (name,))(sums, np.array([len(kept.ids)]))
        assert found == pytest.approx(value)
    assert 0 < min(result.metrics.values()) < 100
    both = items.score(tasks.get(task).metric, tuple(result.metrics))(sums, np.array([len(kept.ids)]))
    assert both == pytest.approx(np.mean(list(result.metrics.values())))


@pytest.mark.parametrize("threshold", [None, 1.7])
def test_mined_pairs_are_kept_by_source_sentence_at_their_threshold(threshold, tmp_path):
    result, examples = scored("bucc2018", "de", without_one, threshold)
    kept = items.of(result, examples)
    assert kept.sparse and kept.ids.tolist() == [f"de-{i}" for i in range(4)]
    right = [0, 1, 1, 1] if threshold is None else [0, 0, 0, 0]
    assert kept.columns["predicted"].tolist() == [1, *right[1:]] and kept.columns["correct"].tolist() == right
    sums = {name: column.sum(keepdims=True) for name, column in kept.columns.items()}
    for name in ("f1", "precision", "recall"):
        assert items.score("bucc", (name,))(sums, np.array([4])) == pytest.approx(result.metrics[name])


def test_questions_about_one_paragraph_are_a_group():
    examples = [{"id": f"q{i}", "context": "one" if i < 3 else "two", "answers": []} for i in (4, 0, 3, 1, 2)]
    result = types.SimpleNamespace(values={"f1": {f"q{i}": 0.5 for i in range(5)}}, metrics={"f1": 50.0})
    assert items.of(result, examples).groups.tolist() == ["q0", "q0", "q0", "q4", "q4"]


def test_cases_of_several_questions_are_no_group():
    gold = {"id": "", "context": "one", "question": "?", "answers": [{"text": "one", "start": 0}]}
    examples = [{**gold, "id": f"animal/{case}/{i}"} for case in range(2) for i in range(2)]
    metric = metrics.get("multichecklist", "en")
    state = metric.update(dict.fromkeys(("animal/0/0", "animal/0/1", "animal/1/0"), "one"), examples)
    kept = items.of(types.SimpleNamespace(values=state, metrics=metric.compute(state)), examples)
    assert kept.groups is None and kept.ids.tolist() == ["animal/0", "animal/1"]
    assert kept.columns["failed_animal"].tolist() == [0, 1]


def test_files_are_whole_equal_and_hold_nothing_pickled(tmp_path):
    result, examples = scored("xquad")
    for name in ("a", "b"):
        items.write(tmp_path / f"{name}.npz", items.of(result, examples), IDENTITY)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert {arrays[name].dtype.kind for name in arrays.files} == {"U", "f"}
    assert items.belongs(tmp_path / "a.npz", IDENTITY)
    for key in IDENTITY:
        assert not items.belongs(tmp_path / "a.npz", {**IDENTITY, key: "other"})
    assert not items.belongs(tmp_path / "none.npz", IDENTITY)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut\.npz: not the items"):
        items.read(tmp_path / "cut.npz")


# --- beside results --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A bundle with an NLI and a span head, and data in English and German."""
    folder = tmp_path_factory.mktemp("world")
    tiny_bundle(folder / "bundle", word_tokenizer())
    labels = tasks.get("xnli").labels
    text = "".join(f"{' '.join(WORDS[i : i + 4])}\t{' '.join(WORDS[:3])}\t{labels[i % 3]}\n" for i in range(6))
    for language in ("en", "de"):
        files.write(folder, f"data/xtreme/xnli/dev-{language}.tsv", text)
        questions = files.squad(("q1", [("dog", 6)], {}), ("q2", [("red", 2)], {}), context="a red dog sleeps")
        files.write(folder, f"data/xtreme/xquad/xquad.{language}.json", questions)
    return folder


@pytest.fixture
def add(world, one_device):
    """Evaluates into a folder; counts how often the model was loaded."""

    def add(folder, languages=("en", "de"), tasks=("xnli", "xquad"), sha="c0ffee"):
        loads = []
        request = results.Request(
            tasks=tasks, languages=languages, options=evaluator.Options(max_length=48, max_query_length=8)
        )
        labels = {"study": "s", "phase": "p", "model": "m", "intermediate": "none", "target": "", "seed": 0,
                  "checkpoint_sha256": sha}  # fmt: skip
        results.add(
            folder, "e", request, labels, lambda: loads.append(1) or bundle.load(world / "bundle", mesh=one_device),
            data_dir=str(world / "data"), cache_dir=world / "cache", digests_dir=world / "digests", mesh=one_device,
        )  # fmt: skip
        found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        return found, len(loads)

    return add


def test_changed_data_is_evaluated_again(add, tmp_path, world):
    """That of the language whose file has changed; rows that do not say what they saw stay."""
    before, _ = add(tmp_path, tasks=("xnli",))
    path = world / "data/xtreme/xnli/dev-de.tsv"
    text = path.read_text()
    try:
        path.write_text(text.replace("entailment", "neutral"))
        after, loads = add(tmp_path, tasks=("xnli",))
        assert loads == 1 and [row["language"] for row in after] == ["en", "de"]
        assert after[0] == before[0] and after[1]["data"] != before[1]["data"]
        assert add(tmp_path, tasks=("xnli",)) == (after, 0)
        bare = [{key: value for key, value in row.items() if key != "data"} for row in before]
        (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
        assert add(tmp_path, tasks=("xnli",)) == (bare, 0)
    finally:
        path.write_text(text)


def test_every_file_that_decides_a_result_counts(tmp_path):
    """Retrieval's English side and gold pairs; of BUCC's test also dev, on which the threshold is tuned."""
    paths = [f"xtreme/bucc2018/de-en.{split}.{end}" for split in ("dev", "test") for end in ("de", "en", "gold")]
    for path in paths:
        files.write(tmp_path, path, path)
    request = results.Request(tasks=("bucc2018",), languages=("de",), split="test")
    content = lambda: results._content(request, str(tmp_path), tmp_path / "kept", "bucc2018", "de")  # noqa: E731
    seen = [content()]
    for path in paths:
        files.write(tmp_path, path, f"{path}, changed")
        seen.append(content())
    assert len(set(seen)) == len(paths) + 1 and content() == seen[-1]


def names(folder):
    return sorted(path.name for path in (folder / "items/e").iterdir())


def test_no_row_lacks_its_items(add, tmp_path):
    found, _ = add(tmp_path)
    assert names(tmp_path) == ["xnli.dev-de.npz", "xnli.dev-en.npz", "xquad.test-de.npz", "xquad.test-en.npz"]
    for row in found:
        path = items.path(tmp_path, "e", row["task"], row["split"], row["language"])
        assert items.belongs(path, row)
        kept = items.read(path)
        assert len(kept.ids) == row["n"] and (kept.groups is None) == (row["task"] == "xnli")
        sums = {name: column.sum() for name, column in kept.columns.items()}
        value = items.score(tasks.get(row["task"]).metric, (row["metric"],))(sums, row["n"])
        assert value == pytest.approx(row["value"])
    assert add(tmp_path) == (found, 0)


def test_rows_whose_items_are_gone_are_evaluated_again(add, tmp_path):
    found, _ = add(tmp_path)
    lost = tmp_path / "items/e/xnli.dev-de.npz"
    before = lost.read_bytes()
    lost.unlink()
    kept = (tmp_path / "items/e/xnli.dev-en.npz").stat().st_mtime_ns
    again, loads = add(tmp_path)
    assert loads == 1 and lost.read_bytes() == before
    assert (tmp_path / "items/e/xnli.dev-en.npz").stat().st_mtime_ns == kept
    key = lambda row: (row["task"], row["language"], row["metric"])  # noqa: E731
    assert sorted(again, key=key) == sorted(found, key=key)


@pytest.mark.parametrize("change", [{"sha": "0ther"}, {"languages": ("de",)}])
def test_replaced_evaluations_replace_their_items(add, tmp_path, change):
    add(tmp_path, tasks=("xnli",))
    found, _ = add(tmp_path, tasks=("xnli",), **change)
    wanted = change.get("languages", ("en", "de"))
    assert names(tmp_path) == sorted(f"xnli.dev-{language}.npz" for language in wanted)
    assert {row["language"] for row in found} == set(wanted)
    assert all(items.belongs(tmp_path / f"items/e/xnli.dev-{row['language']}.npz", row) for row in found)


# --- rows of several runs --------------------------------------------------------------------------------------------


def kept(groups=None, sparse=False, ids=None, **columns):
    some = next(iter(columns.values()))
    ids = [str(i) for i in range(len(some))] if ids is None else ids
    arrays = {name: np.array(column, float) for name, column in columns.items()}
    return items.Kept(np.array(ids), arrays, None if groups is None else np.array(groups), sparse)


def test_rows_of_two_systems():
    a = [{"sw": kept(accuracy=[1, 0, 0, 1]), "en": kept(accuracy=[1, 1, 1, 1])},
         {"en": kept(accuracy=[1, 1, 1, 0]), "sw": kept(accuracy=[0, 0, 1, 0])}]  # fmt: skip
    b = [{"en": kept(accuracy=[0, 0, 0, 0]), "sw": kept(accuracy=[0, 0, 0, 0])}]
    (first, second), languages, clusters = rows([a, b], parallel=True)
    assert first["accuracy"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 1], [1, 1, 1, 0, 0, 0, 1, 0]]
    assert second["accuracy"].tolist() == [[0] * 8]
    assert languages.tolist() == ["en"] * 4 + ["sw"] * 4
    assert clusters.tolist() == list("0123") * 2
    assert len(set(rows([a, b], parallel=False)[2])) == 8
    found = paired_bootstrap(
        first, second, clusters=clusters, languages=languages, score=items.score("accuracy", ("accuracy",)), draws=20
    )
    assert found.value == pytest.approx(100 * 10 / 16)


def test_paragraphs_are_clusters_and_linked_by_shared_questions():
    """Of one paragraph English has the questions 0 to 2, German 2 and 3: all four are one cluster."""
    run = {
        "en": kept(ids=["0", "1", "2", "5"], groups=["0", "0", "0", "5"], f1=[1, 1, 1, 1]),
        "de": kept(ids=["2", "3", "5"], groups=["2", "2", "5"], f1=[1, 1, 1]),
    }
    clusters = rows([[run]], parallel=True)[2].tolist()
    of = dict(zip("de2 de3 de5 en0 en1 en2 en5".split(), clusters, strict=True))
    assert len({of[key] for key in ("de2", "de3", "en0", "en1", "en2")}) == 1
    assert of["de5"] == of["en5"] != of["en0"]
    assert len(set(rows([[run]], parallel=False)[2])) == 4


def test_a_sentence_without_a_mined_pair_counts_zero():
    a = kept(ids=["x", "y"], sparse=True, correct=[1, 0], predicted=[1, 1], gold=[1, 0])
    b = kept(ids=["x", "z"], sparse=True, correct=[0, 1], predicted=[0, 1], gold=[1, 1])
    (first, second), _, clusters = rows([[{"de": a}], [{"de": b}]], parallel=False)
    assert [key[-1] for key in clusters] == ["x", "y", "z"]
    assert first["predicted"].tolist() == [[1, 1, 0]] and second["predicted"].tolist() == [[0, 0, 1]]


def test_columns_are_those_of_all_languages():
    """Where over-long sentences lost words, a language has the values over all words, too."""
    short, long = kept(ids=["0"], right=[1]), kept(ids=["0"], right=[1], right_all=[0.5])
    (columns, _), languages, _ = rows([[{"de": short, "zh": long}], [{"de": short, "zh": long}]], parallel=False)
    assert list(columns) == ["right"] and languages.tolist() == ["de", "zh"]


def test_rows_need_the_same_items_everywhere():
    own = kept(ids=["q1", "q2"], f1=[1, 0.5], exact_match=[1, 0])
    assert sorted(rows([[{"en": own}]], parallel=False)[0][0]) == ["exact_match", "f1"]
    other = kept(ids=["q1", "q3"], f1=[1, 0.5], exact_match=[1, 0])
    fewer = kept(ids=["q1", "q2"], f1=[1, 0.5])
    for wrong in ({"en": other}, {"en": fewer}, {}, {"en": own, "de": own}):
        for systems in ([[{"en": own}, wrong]], [[{"en": own}], [wrong]]):
            with pytest.raises(InputError, match="run 1"):
                rows(systems, parallel=False)
    empty = kept(ids=[], f1=[])
    for nothing in ([], [[]], [[{}]], [[{"en": empty}]]):
        with pytest.raises(InputError, match="there is no"):
            rows(nothing, parallel=False)


def test_parallel_is_a_fact_of_the_task(corpus):
    """Where ids are one item in all languages, the gold is the same; of other tasks it is not."""
    for name, split, gold in (
        ("xnli", "dev", lambda row: row["label"]), ("xquad", "test", lambda row: len(row["answers"])),
    ):  # fmt: skip
        english, german = (
            {row["id"]: gold(row) for row in tasks.load(name, corpus, split, language)} for language in ("en", "de")
        )
        assert tasks.get(name).parallel and english == german
    parallel = [name for name in tasks.names() if tasks.get(name).parallel]
    assert parallel == ["lareqa", "mlqa", "pawsx", "xcopa", "xcopa_gmt", "xnli", "xquad"]
