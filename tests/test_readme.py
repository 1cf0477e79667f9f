"""The README's Python runs as printed, on a tiny model and toy data in the places that it names."""

import pathlib
import re

import jax
import world

from jxstilts import tasks
from jxstilts.data import tokenizer as tokenizers
from jxstilts.models import bundle
from jxstilts.models.model import HeadSpec, Model, make_config

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_python_example_runs(tmp_path, monkeypatch, capsys):
    world.write(tmp_path / "DATA")
    (tmp_path / "DATA/xtreme/xnli/dev-de.tsv").rename(tmp_path / "DATA/xtreme/xnli/dev-sw.tsv")
    tokenizer = tokenizers.train([" ".join(world.WORDS)] * 9, 100, model="bpe")
    tokenizers.save(tokenizer, tmp_path / "tokenizer")
    config = make_config("xlmr", "tiny", vocab_size=len(tokenizer))
    model = Model(config, (HeadSpec("mnli", "classification", tasks.get("mnli").labels),))
    folder = tmp_path / "runs/real_small/phases/mnli/best"
    bundle.save(folder, model, jax.jit(model.init)(jax.random.key(0)), tokenizer_files=tmp_path / "tokenizer")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"## From Python\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("{'accuracy': ") and lines[-1] == "(3, 1, 32)"


def test_every_file_named_in_the_docs_exists():
    root = README.parent
    for page in (README, *sorted((root / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for path in re.findall(r"`((?:jxstilts|configs|launch|benchmarks|tests|docs)/[\w./]*\w)`", page.read_text()):
            assert (root / path).exists(), f"{page.name} names {path}"
