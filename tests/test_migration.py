"""docs/migration.md: its Python and its configs run as printed, and what its tables name here is there."""

import contextlib
import dataclasses
import io
import json
import pathlib
import re
import types
import typing

import pytest
import samples
from safetensors.numpy import load_file

from jxstilts import cli, mesh, study, tasks
from jxstilts.config import complete, load
from jxstilts.data import tokenizer
from jxstilts.models import bundle, export
from jxstilts.models.heads.embedding import EmbeddingSpec, Recipe
from jxstilts.models.model import Model, make_config
from jxstilts.study import Study
from jxstilts.train.phase import Phase

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^(jxstilts .*?)(?: +#.*)?$", "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)), re.M)
# What stands in place of a key or an option: a value, the name of a head, a task or a family.
OURS = ("()", "NAME_text", "anli_plus", "classification", "mlm", "mt5")
CALLS = ("api.", "model.", "retrieval.", "encode(", "params[", "form=", "layer=", "pooling=")


@pytest.fixture(scope="module")
def options():
    """{command: its --options}, as `--help` prints them, of the commands that the page names."""
    found = {}
    for name in sorted(
        {*re.findall(r"jxstilts ([a-z]+)", "\n".join(COMMANDS)), *re.findall(r"`jxstilts ([a-z]+)", PAGE)}
    ):
        with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
            cli.main([name, "--help"])
        assert end.value.code == 0
        found[name] = {*re.findall(r"--[a-z_]+", out.getvalue())}
    return found


def resolve(kind, parts):
    """Raises AssertionError unless the dataclasses have a key of these parts."""
    kind = kind.__origin__ if typing.get_origin(kind) is typing.Annotated else kind
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = [each for each in typing.get_args(kind) if each is not type(None)]
    if not parts:
        return
    if dataclasses.is_dataclass(kind):
        assert parts[0] in {field.name for field in dataclasses.fields(kind)}, (kind.__name__, parts)
        resolve(typing.get_type_hints(kind, include_extras=True)[parts[0]], parts[1:])
    else:
        assert typing.get_origin(kind) is dict, (kind, parts)
        resolve(typing.get_args(kind)[1], parts[1:])


def check_key(text):
    key, _, _ = text.partition("=")
    parts = key.split(".")
    if parts[0] == "tasks" and parts[1] not in ("NAME", *tasks.names()):
        pytest.fail(f"no task {parts[1]}")
    if parts[0] == "what":
        resolve(typing.get_type_hints(study.config.Evaluation)["what"], parts[1:])
    else:
        resolve(Study if parts[0] == "config" else Phase, parts[1:] if parts[0] == "config" else parts)


def check_command(text, options):
    _, name, *words = text.split()
    assert name in options, text
    for word in words:
        option, _, value = word.partition("=")
        if option.startswith("--config."):
            check_key(option.removeprefix("--"))
        elif option.startswith("--") and not (option == "--config" and name in ("run", "plan", "check")):
            assert option in options[name], text
        if option == "--tasks":
            assert {*value.split(",")} <= {*tasks.names()}, text


def test_what_stands_in_the_place_of_theirs_is_here(options):
    cells = []
    for line in PAGE.splitlines():
        row = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(row) >= 2:
            cells.append(row)
    begins = [number for number, row in enumerate(cells) if row[1].startswith("here")]
    assert len(begins) == 7
    for begin in begins:
        for row in cells[begin + 1 :]:
            if row[1:2] == ["what"] or row[1].startswith("here"):
                break
            for text in re.findall(r"`([^`]+)`", row[1]):
                check(text, options)
    for text in (
        "optimizer.clip",
        "select.metric",
        "tasks.NAME.objective",
        "tasks.NAME.pooling",
        "tasks.NAME.batch_size",
    ):
        assert f"`{text}" in PAGE
        check_key(text)


def check(text, options):
    if text in OURS or text.startswith(CALLS) or text.startswith("DATA/"):
        return
    if text.startswith("jxstilts "):
        check_command(text, options)
    elif text.startswith("--"):
        option = text.partition("=")[0].split()[0]
        assert option == "--config" or any(option in known for known in options.values()), text
        if option == "--tasks" and "=" in text:
            assert {*text.partition("=")[2].split()[0].split(",")} <= {*tasks.names()}, text
    else:
        check_key(text)


def test_commands(options, tmp_path, monkeypatch):
    assert len(COMMANDS) == 5
    (tmp_path / "DATA").mkdir()
    for text in COMMANDS:
        check_command(text, options)
        if text.startswith("jxstilts run "):
            words = [word for word in text.split() if word.startswith("--config")]
            words = [
                word.replace("=DATA", f"={tmp_path}/DATA").replace("=configs", f"={ROOT}/configs") for word in words
            ]
            made = study.from_config(load(words))
            assert {evaluation.target for evaluation in made.evaluations.values()} >= {"xnli", "udpos", "tydiqa"}
            protocols = {phase.protocol for phase in made.phases.values() if phase.tasks}
            assert protocols == {"xtreme" if "protocol=xtreme" in text else "authors"}


def test_a_flax_model_becomes_a_bundle_and_a_folder(tmp_path, monkeypatch, capsys):
    write_model(tmp_path / "MY_FLAX_MODEL", tmp_path)
    monkeypatch.chdir(tmp_path)
    for text in COMMANDS[:2]:
        assert cli.main(text.split()[1:]) == 0
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        each.name for each in pathlib.Path("my_folder").iterdir()
    }


def test_phases_of_ones_own():
    names = {}
    exec(compile(next(code for code in PYTHON if code.startswith("phases")), "migration.md", "exec"), names)
    config = complete(
        Study, {"study": "x", "data_dir": "", "model": {}, **{k: names[k] for k in ("phases", "evaluations")}}
    )
    made = study.from_config(config, to_run=False)
    (first, second), multi = study.config.order(made), made.phases["mnli_and_squad"]
    assert (first, second) == ("mnli_and_squad", "xnli") and multi.optimizer.warmup == 0.1
    assert {name: stream.max_length for name, stream in multi.tasks.items()} == {"mnli": 256, "squad_v1": 256}


def write_model(folder, place, heads=()):
    """Writes a tiny model as one of transformers' Flax models, or with heads as a folder in safetensors."""
    tokens = samples.word_tokenizer()
    tokenizer.save(tokens, place / "tokenizer")
    model = Model(make_config("xlmr", "tiny", vocab_size=len(tokens), layers=1, max_positions=16), heads)
    export.to_huggingface(bundle.Loaded(model, samples.random_params(model), place / "tokenizer"), folder)
    if not heads:
        samples.write_flax(folder / "flax_model.msgpack", load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("which", ["my_flax_model", "my_embedding_model"])
def test_python(which, tmp_path, monkeypatch, capsys, one_device):
    pytest.importorskip("jxstilts.api")
    monkeypatch.setattr(mesh, "make_mesh", lambda *axes: one_device)
    recipe = (EmbeddingSpec("embedding", "embedding", recipe=Recipe(normalise=True)),)
    write_model(tmp_path / which, tmp_path, recipe if which == "my_embedding_model" else ())
    monkeypatch.chdir(tmp_path)
    (code,) = [code for code in PYTHON if which in code]
    exec(compile(code, "migration.md", "exec"), {})
    first, *_, last = capsys.readouterr().out.splitlines()
    if which == "my_flax_model":
        assert first in ("yes", "no") and last.startswith("{'accuracy': ")
        assert json.loads((tmp_path / "my_pytorch_folder/config.json").read_text())["architectures"] == [
            "XLMRobertaForSequenceClassification"
        ]
    else:
        assert first.endswith(" 2]") and last.startswith("[(")
