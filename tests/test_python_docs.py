"""docs/python.md and docs/notebook.ipynb run as they stand, on tiny models in the places that they name."""

import dataclasses
import json
import pathlib
import re
import shlex
import shutil

import folders
import jax
import pytest
import samples
import toy

from jxstilts import api, cli, mesh, runtime, tasks
from jxstilts.data import tokenizer as tokenizers
from jxstilts.models import bundle, export
from jxstilts.models.model import HeadSpec, Model, make_config

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "python.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CONLL = "the DT B-NP O\nking NN I-NP O\nwatches VBZ B-VP O\nParis NNP B-NP B-LOC\n\n" * 4
ORDER = ("neutral", "contradiction", "entailment")  # of the model of recipe 7


def model(folder):
    """Writes and returns an untrained model, but one that learns fast, with a head for pairs and one for questions."""
    tokenizer = samples.small_tokenizer()
    tokenizers.save(tokenizer, folder.with_name("tokenizer"))
    specs = (HeadSpec("mnli", "classification", tasks.get("mnli").labels), HeadSpec("qa", "span"))
    changes = {"init_std": 0.2, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    made = Model(make_config("xlmr", "tiny", vocab_size=len(tokenizer), **changes), specs)
    params = jax.jit(made.init)(jax.random.key(0))
    bundle.save(folder, made, params, tokenizer_files=folder.with_name("tokenizer"))
    return bundle.load(folder)


@pytest.fixture
def places(world, tmp_path, monkeypatch, compile_cache):
    """The page's folders, of one device as most readers have it."""
    runtime.start(str(compile_cache))
    whole = mesh.make_mesh
    monkeypatch.setattr(mesh, "make_mesh", lambda sizes=None, devices=None: whole(sizes, jax.devices()[:1]))
    loaded = model(tmp_path / "MODEL")
    (tmp_path / "DATA/xtreme/xnli").mkdir(parents=True)
    shutil.copy(world / "xtreme/xnli/dev-tr.tsv", tmp_path / "DATA/xtreme/xnli/dev-sw.tsv")
    (tmp_path / "conll").mkdir()
    (tmp_path / "conll/train.txt").write_text(CONLL)
    (tmp_path / "study.py").write_text(toy.CONFIG)
    for name, gain in (("old", 0.0), ("new", 0.2)):
        rows = folders.study(tmp_path / "runs" / name, {"none": gain}, ("xnli",), seeds=1, n=60)
        folders.put(tmp_path / "runs" / name, *[row | {"study": name} for row in rows])
    head = dataclasses.replace(loaded.model.head_specs[0], labels=ORDER)
    other = dataclasses.replace(loaded, model=loaded.model.with_heads(head))
    export.to_huggingface(other, tmp_path / "NLI_MODEL")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipes_run(places, capsys):
    recipes = re.findall(r"^## (\d+)\. .*?\n\n(?=```)(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    assert [int(number) for number, _ in recipes] == [*range(1, 11)]
    out, spaces = {}, {}
    for number, text in recipes:
        ((kind, code),) = BLOCK.findall(text)
        assert len([line for line in code.splitlines() if line]) <= 10
        if kind == "sh":
            assert cli.main(shlex.split(code)[1:]) == 0
        else:
            spaces[number] = {}
            exec(compile(code, f"recipe {number}", "exec"), spaces[number])
        out[number] = capsys.readouterr().out
    assert out["1"] == "good\n" and out["2"].count("'neutral': ") == 4
    assert [word[:2] for word in eval(out["3"])][-1] == ("Paris", "B-LOC")
    assert spaces["4"]["result"]["text"] in spaces["4"]["context"] and len(eval(out["4"].splitlines()[1])) == 3
    assert out["5"] == "{'cost': 0.0}\n"
    assert spaces["6"]["model"].heads["classification"].labels == ("bad", "good")
    assert out["7"].splitlines()[0] == str(ORDER) and "'accuracy'" in out["7"] and "'f1'" in out["8"]
    assert out["9"].startswith("# new against old\n") and (places / "runs/new/against/old/report/index.html").exists()
    changed = next(line for line in out["10"].splitlines() if line.startswith("mnli"))
    assert "4" in changed.split()  # 2 epochs of 32 rows, 16 a step


@pytest.mark.slow
def test_the_notebook_runs(places, monkeypatch, capsys):
    notebook = json.loads((DOCS / "notebook.ipynb").read_text())
    assert notebook["nbformat"] == 4 and {cell["cell_type"] for cell in notebook["cells"]} == {"markdown", "code"}
    space: dict = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), space)
    assert space["result"].metrics["accuracy"] > 90 and isinstance(space["model"], api.Ready)
    assert space["vectors"].shape == (3, 96)
