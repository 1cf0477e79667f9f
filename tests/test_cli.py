"""The command line as a user meets it: every command, and each kind of bad input as one line with exit code 2."""

import json
import shutil

import files
import pytest
from samples import tiny_bundle

from jxstilts import cli, tasks
from jxstilts.data import tokenizer as tokenizers
from jxstilts.eval import submission
from jxstilts.models import bundle


@pytest.fixture(scope="module")
def data_dir(world, tmp_path_factory):
    """Three tasks of the world in English and German."""
    patterns = ("xnli/dev-[de][en].tsv", "xquad/xquad.[de][en].json", "tatoeba/tatoeba.deu-*")
    return files.part(world, tmp_path_factory.mktemp("data"), *(f"xtreme/{pattern}" for pattern in patterns))


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    """A bundle with an NLI and a span head."""
    texts = [(world / f"text/common_voice/{language}.txt").read_text() for language in ("en", "de")]
    tokenizer = tokenizers.train("".join(texts).splitlines(), 400, model="bpe")
    return tiny_bundle(tmp_path_factory.mktemp("model") / "bundle", tokenizer)


@pytest.fixture
def run(capsys):
    def run(*arguments, code=0):
        found = cli.main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        assert found == code, err
        assert "Traceback" not in err
        if code == 2:
            lines = [line for line in err.splitlines() if line.startswith("jxstilts: error: ")]
            assert len(lines) == 1
            return lines[0]
        return out

    return run


def evaluate(model, data_dir, out, *more):
    return ["evaluate", f"--model={model}", f"--data_dir={data_dir}", f"--out={out}", "--tokens_per_batch=512", *more]


def test_evaluate_prints_and_keeps_results(run, model, data_dir, tmp_path):
    arguments = evaluate(
        model, data_dir, tmp_path, "--tasks=xnli,xquad,tatoeba", "--languages=en,de", "--max_length=96"
    )
    out = run(*arguments)
    assert "xnli (2) accuracy" in out and "xquad (2) F1/EM" in out and "tatoeba (1) accuracy" in out
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {(row["task"], row["split"]) for row in rows} == {("xnli", "dev"), ("xquad", "test"), ("tatoeba", "test")}
    files = {path.relative_to(tmp_path / "predictions").as_posix() for path in tmp_path.glob("predictions/*/*/*")}
    assert files == {
        f"evaluate/{name}"
        for name in (
            "xnli/dev-en.tsv", "xnli/dev-de.tsv", "xquad/test-en.json", "xquad/test-de.json", "tatoeba/test-de.tsv",
        )
    }  # fmt: skip
    before = (tmp_path / "results.jsonl").stat().st_mtime_ns
    assert run(*arguments) == out
    assert (tmp_path / "results.jsonl").stat().st_mtime_ns == before
    assert "xnli (2) accuracy" in run("report", tmp_path)


def test_what_evaluate_writes_is_scored_as_it_is(run, model, data_dir, tmp_path):
    """The values of `jxstilts score` are those that the evaluation itself has kept."""
    which = ["--tasks=xnli,xquad,tatoeba", "--languages=en,de"]
    run(*evaluate(model, data_dir, tmp_path, *which, "--max_length=96"))
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    labels = tmp_path / "labels"
    for task, split, language in {(row["task"], row["split"], row["language"]) for row in rows}:
        submission.write_labels(labels, task, split, language, tasks.load(task, data_dir, split, language))
    (labels / "xquad/test-en.json").write_bytes((data_dir / "xtreme/xquad/xquad.en.json").read_bytes())
    arguments = ["score", f"--predictions={tmp_path / 'predictions/evaluate'}", f"--labels={labels}", *which]
    found = json.loads(run(*arguments, "--split=dev", "--json"))
    kept = {(row["task"], row["language"], row["metric"]): row["value"] for row in rows}
    again = {
        (task, language, metric): value
        for task, values in found["tasks"].items()
        for language, metrics in values["languages"].items()
        for metric, value in metrics.items()
    }
    assert again == pytest.approx(kept) and len(kept) == 7
    assert found["overall"] is None
    assert "xtreme, dev" in run(*arguments, "--split=dev")
    line = run(*arguments, code=2)
    assert "test-en.tsv" in line and "there is a dev file: --split=dev" in line


def test_a_phases_folder_stands_for_its_best_model(run, model, data_dir, tmp_path):
    """In every place where a model's path is given; what has no model yet is said so."""
    study, asked = tmp_path / "w", ["--tasks=xnli", "--languages=de"]
    (study / "phases/half").mkdir(parents=True)
    (study / "phases/half/metrics.jsonl").touch()
    shutil.copytree(model, study / "phases/done/best")
    done, half = study / "phases/done", study / "phases/half"
    outs = [run(*evaluate(path, data_dir, tmp_path / "out", *asked)) for path in (done / "best", done)]
    assert outs[0] == outs[1] and "devices: 8 x cpu" in outs[0]
    assert len((tmp_path / "out/results.jsonl").read_text().splitlines()) == 1  # the same model by another name
    run("import", done, tmp_path / "bundle")
    run("export", done, tmp_path / "hf", "--head=mnli")
    assert bundle.read_meta(tmp_path / "bundle")["sha256"] == bundle.read_meta(model)["sha256"]
    config = tmp_path / "c.py"
    config.write_text(
        "def get_config():\n"
        "    return {'study': 's', 'data_dir': '', 'model': {}, 'evaluations': {}, 'phases': {'p': {}}}"
    )
    start = ["plan", f"--config={config}", "--json", "--config.phases.p.init={}"]
    plan = json.loads(run(*(part.format(done) for part in start)))
    assert plan["phases"][0]["init"] == str(done / "best")
    for path, text in (
        (half, "is a phase that has not finished: it has no best/ yet"),
        (study, f"is a study; give one of its phases, as {study}/phases/NAME: done"),
        (config, "is a file; give a bundle, a Hugging Face folder or a hub id"),
    ):
        assert f"--model='{path}' {text}" in run(*evaluate(path, data_dir, tmp_path / "out", *asked), code=2)
        assert text in run("import", path, tmp_path / "new", code=2)
        assert text in run("export", path, tmp_path / "new", code=2)
        assert f"config.phases.p.init='{path}' {text}" in run(*(part.format(path) for part in start), code=2)


@pytest.mark.parametrize("odd", ["/proc", "/proc/new", "/dev/null", "/dev/null/new", "FILE", "FILE/new", "x" * 300])
@pytest.mark.parametrize("command", ["run", "evaluate", "import", "export", "world"])
def test_a_folder_that_cannot_be_written_is_named(run, model, data_dir, tmp_path, monkeypatch, command, odd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "c.py").write_text(
        "def get_config():\n    return {'study': 's', 'data_dir': '.', 'model': {}, 'evaluations': {}, 'phases': {}}"
    )
    odd = odd.replace("FILE", str(tmp_path / "file"))
    arguments = {
        "run": ["run", "--config=c.py", f"--workdir={odd}"],
        "evaluate": evaluate(model, data_dir, odd, "--tasks=xnli", "--languages=de"),
        "import": ["import", model, odd], "export": ["export", model, odd, "--head=mnli"],
        "world": ["world", odd, "--size=tiny"],
    }[command]  # fmt: skip
    assert odd.rpartition("/")[0][:200] in run(*arguments, code=2)


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nosuch"])
@pytest.mark.parametrize("command", ["plan", "run", "evaluate", "import"])
def test_a_platform_that_is_not_here_is_named(run, model, data_dir, tmp_path, monkeypatch, command, platform):
    """As JAX and jaxlib say it: one of them with a bare assertion."""
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    error = AssertionError() if platform == "cuda" else RuntimeError(f"Unable to initialize backend '{platform}'")

    def devices():
        raise error

    monkeypatch.setattr("jax.devices", devices)
    (tmp_path / "c.py").write_text(
        "def get_config():\n    return {'study': 's', 'data_dir': '.', 'model': {}, 'evaluations': {}, 'phases': {}}"
    )
    arguments = {
        "plan": ["plan", f"--config={tmp_path}/c.py"],
        "run": ["run", f"--config={tmp_path}/c.py", f"--workdir={tmp_path}/w"],
        "evaluate": evaluate(model, data_dir, tmp_path / "out", "--tasks=xnli"),
        "import": ["import", model, tmp_path / "new"],
    }[command]
    line = run(*arguments, code=2)
    assert f"JAX_PLATFORMS={platform}: " in line and "JAX_PLATFORMS=cpu takes the CPU" in line


def test_export_and_import_are_inverse(run, model, data_dir, tmp_path):
    run("export", model, tmp_path / "hf", "--head=mnli")
    run("import", tmp_path / "hf", tmp_path / "again")
    first, again = bundle.load(model), bundle.load(tmp_path / "again")
    assert {k: v for k, v in first.meta["leaves"].items() if k.startswith("encoder")} == {
        k: v for k, v in again.meta["leaves"].items() if k.startswith("encoder")
    }
    for source, out in ((tmp_path / "hf", "one"), (model, "two")):
        run(*evaluate(source, data_dir, tmp_path / out, "--tasks=xnli", "--languages=de"))
    files = [tmp_path / out / "predictions/evaluate/xnli/dev-de.tsv" for out in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_lists(run):
    assert "xnli" in run("tasks") and "Swahili" in run("languages") and "xlmr base" in run("models")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--tasks=xnly"], "--tasks: unknown task 'xnly'; did you mean 'xnli'"),
        (["--tasks=xnli", "--languages=ene"], "--languages: unknown language of these tasks 'ene'; did you mean 'en'"),
        (["--tasks=xnli", "--languages=sw"], "dev-sw.tsv"),
        (["--tasks=text"], "no metric"),
        (["--tasks=xnli", "--split=tset"], "'tset' was asked for"),
        (["--tasks=xnli", "--languages=en", "--head=other"], "needs the classification head 'other'"),
        (["--tasks=xnli", "--languages=en", "--max_length=5000"], "positions for 128 tokens"),
        (["--tasks=xnli", "--dtype=float8"], "unknown dtype 'float8'"),
        (["--tasks=xnli", "--layr=3"], "unknown option '--layr=3'"),
    ],
)
def test_bad_requests(run, model, data_dir, tmp_path, more, text):
    assert text in run(*evaluate(model, data_dir, tmp_path / "out", *more), code=2)
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("file", "spoil", "task", "text"),
    [
        ("xtreme/xnli/dev-en.tsv", None, "xnli", "dev-en.tsv"),
        ("xtreme/xnli/dev-en.tsv", lambda t: t + "only one column\n", "xnli", "dev-en.tsv:61"),
        ("xtreme/xnli/dev-en.tsv", lambda t: t + "a\tb\tperhaps\n", "xnli", "dev-en.tsv:61: unknown label 'perhaps'"),
        ("xtreme/xnli/dev-en.tsv", lambda t: "", "xnli", "empty"),
        ("xtreme/xquad/xquad.en.json", lambda t: t[: len(t) // 2], "xquad", "xquad.en.json:1: not JSON"),
        ("xtreme/xquad/xquad.en.json", lambda t: t.replace('"answer_start": ', '"answer_start": 1'), "xquad", "offset"),
        ("xtreme/tatoeba/tatoeba.deu-eng.deu", lambda t: t + "noch einer\n", "tatoeba", "tatoeba.deu-eng"),
    ],
)
def test_bad_data(run, model, data_dir, tmp_path, file, spoil, task, text):
    shutil.copytree(data_dir, tmp_path / "data")
    path = tmp_path / "data" / file
    if spoil is None:
        path.unlink()
    else:
        path.write_text(spoil(path.read_text()))
    languages = "de" if task == "tatoeba" else "en"
    arguments = evaluate(model, tmp_path / "data", tmp_path / "out", f"--tasks={task}", f"--languages={languages}")
    assert text in run(*arguments, code=2)


def test_bad_models(run, model, data_dir, tmp_path):
    def attempt(path):
        return run(*evaluate(path, data_dir, tmp_path / "out", "--tasks=xnli", "--languages=en"), code=2)

    assert "nowhere" in attempt(tmp_path / "nowhere")
    run("export", model, tmp_path / "hf", "--head=mnli")
    weights = tmp_path / "hf" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors" in attempt(tmp_path / "hf")
    weights.write_bytes(whole)
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**settings, "hidden_size": 64}))
    line = attempt(tmp_path / "hf")
    assert "expected" in line and "found" in line and "query" in line
    assert "exists" in run("export", model, tmp_path / "hf", "--head=mnli", code=2)


@pytest.mark.parametrize(
    "arguments, needed", [(["--help"], []), (["plan", "--config=configs/quickstart.py"], ["flax", "jax", "optax"])]
)
def test_a_command_imports_what_it_needs(arguments, needed):
    """`jxstilts --help` is fast: nothing heavy is imported. A plan reads no arrays and tokenises nothing."""
    import subprocess
    import sys

    code = (
        "import sys\nfrom jxstilts import cli\n"
        f"try:\n    cli.main({arguments})\nexcept SystemExit:\n    pass\n"
        "heavy = {'flax', 'jax', 'optax', 'transformers', 'orbax', 'grain', 'tensorflow_datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == str(needed), done.stdout + done.stderr


@pytest.fixture(scope="module")
def bucc(data_dir, tmp_path_factory):
    """A data_dir with German BUCC files: dev and test with gold."""
    folder = tmp_path_factory.mktemp("bucc")
    source = data_dir / "xtreme/tatoeba"
    lines = {side: (source / f"tatoeba.deu-eng.{side}").read_text().splitlines() for side in ("deu", "eng")}
    (folder / "xtreme/bucc2018").mkdir(parents=True)
    for split in ("dev", "test"):
        for suffix, side in (("de", "deu"), ("en", "eng")):
            text = "".join(f"{suffix}-{i}\t{line}\n" for i, line in enumerate(lines[side]))
            (folder / f"xtreme/bucc2018/de-en.{split}.{suffix}").write_text(text)
        gold = "".join(f"de-{i}\ten-{i}\n" for i in range(0, 12, 2))
        (folder / f"xtreme/bucc2018/de-en.{split}.gold").write_text(gold)
    return folder


def test_a_benchmark_is_evaluated_as_far_as_model_and_data_go(run, model, data_dir, tmp_path, capsys):
    assert cli.main(evaluate(model, data_dir, tmp_path, "--tasks=xtreme", "--max_length=96")) == 0
    out, err = capsys.readouterr()
    assert "left out, no data: xnli ar bg" in err and "pawsx de en es fr ja ko zh; udpos" in err
    assert "panx" in err and "bucc2018 de fr ru zh" in err and "no head" not in err
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows} == {"xnli", "xquad", "tatoeba"} and "xnli (2)" in out
    error = run(*evaluate(model, data_dir, tmp_path, "--tasks=xtreme,xnli"), code=2)
    assert "or one benchmark (xtreme) alone" in error


def test_mining_takes_its_threshold_from_dev(run, model, bucc, tmp_path):
    options = ["--tasks=bucc2018", "--languages=de", "--layer=0"]
    run(*evaluate(model, bucc, tmp_path / "dev", *options))
    run(*evaluate(model, bucc, tmp_path / "test", *options, "--split=test"))
    dev, test = (
        {row["metric"]: row["value"] for row in map(json.loads, (tmp_path / name / "results.jsonl").open())}
        for name in ("dev", "test")
    )
    assert test["threshold"] == dev["threshold"] and test["f1"] == dev["f1"] == test["oracle_f1"]
    gold = bucc / "xtreme/bucc2018/de-en.dev.gold"
    text = gold.read_text()
    gold.write_text(text.splitlines()[0] + "\n")  # another dev gold, another threshold; test's own gold tunes nothing
    run(*evaluate(model, bucc, tmp_path / "other", *options, "--split=test"))
    gold.write_text(text)
    other = {row["metric"]: row["value"] for row in map(json.loads, (tmp_path / "other/results.jsonl").open())}
    assert other["oracle_f1"] == test["oracle_f1"] and other["f1"] <= test["f1"]
    gold.unlink()
    try:
        error = run(*evaluate(model, bucc, tmp_path / "none", *options, "--split=test"), code=2)
    finally:
        gold.write_text(text)
    assert "the dev sets of de have no gold pairs" in error and not (tmp_path / "none/results.jsonl").exists()


def test_every_hidden_state_is_scored_on_request(run, model, data_dir, tmp_path):
    out = run(*evaluate(model, data_dir, tmp_path, "--tasks=tatoeba", "--languages=de", "--layer=all"))
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    found = {row["metric"]: row["value"] for row in rows}
    assert set(found) == {"accuracy", "accuracy@0", "accuracy@1", "accuracy@2"}
    assert found["accuracy"] == found["accuracy@1"]  # the study's layer 14 of 24: of two layers, the first
    assert "| hidden state | tatoeba" in out
    assert "--layer=top" in run(*evaluate(model, data_dir, tmp_path, "--tasks=tatoeba", "--layer=top"), code=2)


def test_rows_without_gold_are_predicted(run, model, data_dir, tmp_path):
    folder = tmp_path / "data/xtreme/xnli"
    folder.mkdir(parents=True)
    (folder / "test-en.tsv").write_text("a red dog runs\tyes a dog runs\n" * 3)
    out = run(*evaluate(model, tmp_path / "data", tmp_path / "out", "--tasks=xnli", "--languages=en", "--split=test"))
    assert "Predicted, but there are no gold labels to score: xnli test en" in out
    assert len((tmp_path / "out/predictions/evaluate/xnli/test-en.tsv").read_text().splitlines()) == 3
