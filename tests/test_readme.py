"""The README's Python runs as printed, on a tiny model and the miniature world in the places that it names."""

import pathlib
import re
import shutil

import samples

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_python_example_runs(world, tmp_path, monkeypatch, capsys):
    (tmp_path / "DATA/xtreme/xnli").mkdir(parents=True)
    shutil.copy(world / "xtreme/xnli/dev-tr.tsv", tmp_path / "DATA/xtreme/xnli/dev-sw.tsv")
    samples.tiny_bundle(tmp_path / "runs/real_small/phases/mnli/best", samples.small_tokenizer())
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"## From Python\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("{'accuracy': ") and "'neutral': " in lines[1] and lines[2] == "(2, 32)"


def test_every_file_named_in_the_docs_exists():
    root = README.parent
    for page in (README, *sorted((root / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for path in re.findall(r"`((?:jxstilts|configs|launch|benchmarks|tests|docs)/[\w./]*\w)`", page.read_text()):
            assert (root / path).exists(), f"{page.name} names {path}"
