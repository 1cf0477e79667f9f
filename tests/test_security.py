"""What docs/security.md promises: nothing is unpickled, nothing that came with data or a model is run, and no path that
stands in them is written to."""

import ast
import io
import json
import os
import pathlib
import pickle
import shutil
import tarfile

import folders
import numpy as np
import pytest
from golden.batches import HERE

from jxstilts import study
from jxstilts.data import cache, tokenizer
from jxstilts.data.features import Features
from jxstilts.eval import items, submission
from jxstilts.models import bundle, tensor_files
from jxstilts.report import page
from jxstilts.runtime import InputError

PACKAGE = pathlib.Path(bundle.__file__).parents[1]
# Calls that run or unpack what they are given.
FORBIDDEN = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "shelve.open", "marshal.loads", "yaml.load", "subprocess.run", "subprocess.Popen", "subprocess.call",
    "subprocess.check_output",
    "shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile", "joblib.load", "dill.load",
}  # fmt: skip


class Evil:
    """Unpickling one leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def calls():
    """Yields (file, name, call) of every call in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.relative_to(PACKAGE).as_posix(), ast.unparse(node.func), node


def keyword(call, name):
    found = [one.value for one in call.keywords if one.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_nothing_runs_or_unpacks_what_it_is_given():
    found = [(file, name) for file, name, _ in calls() if name in FORBIDDEN]
    assert not found
    words = ("trust_remote_code", "from_pretrained(", "allow_pickle=True", "weights_only=False", "extractall")
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    assert not [(path.name, word) for path, text in texts.items() for word in words
                if word in text.replace("`AutoModel...from_pretrained`", "")]  # fmt: skip


def test_arrays_and_tensors_are_read_without_pickle():
    reads = [(file, call) for file, name, call in calls() if name in ("np.load", "torch.load")]
    assert len(reads) >= 4
    for file, call in reads:
        safe = keyword(call, "allow_pickle") is False or keyword(call, "weights_only") is True
        assert safe, (file, ast.unparse(call))


def test_code_comes_from_configs_and_task_files_only():
    """Files are run by their path in one place; modules are imported by name from this package only."""
    files = {file for file, name, _ in calls() if name.endswith("spec_from_file_location")}
    assert files == {"rooms.py"}  # JXSTILTS_TASKS, JXSTILTS_FORMS and the like, which the user sets
    rooms = [ast.unparse(call.args[0]) for _, name, call in calls() if name in ("Room", "rooms.Room")]
    assert rooms and set(rooms) == {"__name__"}  # each is a folder of the package
    for file, name, call in calls():
        if name == "importlib.import_module":
            argument = ast.unparse(call.args[0])
            own = argument.startswith(("'jxstilts.", "f'jxstilts.", "f'{__name__}.", "name"))
            if file == "rooms.py":
                own = argument in ("package", "f'{self.package}.{name}'")
            assert own, (file, argument)


def test_a_pickle_in_the_cache_is_made_anew(tmp_path):
    def make():
        return Features(np.arange(3, dtype=np.int32), np.array([0, 3]), {}, {})

    cache.cached(tmp_path / "cache", {"a": 1}, make)
    (entry,) = (tmp_path / "cache").iterdir()
    np.save(entry / "tokens.npy", np.array([Evil(tmp_path / "mark")] * 3, object), allow_pickle=True)
    record = json.loads((entry / "entry.json").read_text())
    record["files"]["tokens.npy"] = (entry / "tokens.npy").stat().st_size
    (entry / "entry.json").write_text(json.dumps(record))
    assert cache.cached(tmp_path / "cache", {"a": 1}, make).tokens.tolist() == [0, 1, 2]
    assert not (tmp_path / "mark").exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()  # it would have been made


def test_a_pickle_among_items_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", about=np.array("{}"), ids=np.array([Evil(tmp_path / "mark")], object))
    with pytest.raises((InputError, ValueError)):
        items.read(tmp_path / "a.npz")
    assert not (tmp_path / "mark").exists()


def test_a_pickle_in_a_torch_file_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": Evil(tmp_path / "mark")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        tensor_files.open_tensors(tmp_path)
    assert not (tmp_path / "mark").exists()


def test_code_in_a_model_folder_is_not_run(tmp_path):
    """As a model with remote code has it: auto_map names a module that lies beside the weights."""
    folder = shutil.copytree(HERE / "xlmr_span", tmp_path / "model")
    for name in ("modeling_evil", "tokenization_evil", "configuration_evil"):
        (folder / f"{name}.py").write_text(f"import os; os.mkdir({str(tmp_path / 'mark')!r})\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_evil.C", "AutoModel": "modeling_evil.M"}
    (folder / "config.json").write_text(json.dumps(config))
    made = tokenizer.train(["a b c d e f g"] * 3, 40, model="bpe")
    tokenizer.save(made, folder)
    named = {"auto_map": {"AutoTokenizer": ["tokenization_evil.T", None]}, "tokenizer_class": "T"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    loaded = bundle.load(folder)
    assert len(tokenizer.load(folder)) == len(made)
    bundle.save(tmp_path / "bundle", loaded.model, loaded.params, tokenizer_files=folder)
    assert not (tmp_path / "mark").exists()
    assert not [name for name in files_below(tmp_path / "bundle") if name.endswith(".py")]


def test_a_model_folder_names_no_file_outside(tmp_path):
    (tmp_path / "outside.safetensors").write_bytes(b"")
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(InputError, match="files of the same folder"):
            tensor_files.open_tensors(folder)


@pytest.mark.parametrize("family", ["os", "..data.cache", "huggingface", "xlmr.os"])
def test_a_bundle_names_no_module(tmp_path, family):
    meta = {"format": 1, "family": family, "config": {}, "heads": [], "provenance": {}, "sha256": "", "leaves": {},
            "tokenizer": {}}  # fmt: skip
    (tmp_path / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="unknown model family"):
        bundle.read_meta(tmp_path)


EVIL = "../../evil"


def test_names_in_data_are_no_paths(tmp_path):
    """Ids of examples stand in the files, and in no file's name."""
    folder = tmp_path / "a/b/predictions"
    examples = [{"id": f"{EVIL}{i}", "premise": "p", "hypothesis": "h", "label": 0} for i in range(2)]
    predictions = {example["id"]: 0 for example in examples}
    submission.write(folder, "xnli", "test", "de", examples, predictions)
    kept = items.Kept(np.array([example["id"] for example in examples]), {"accuracy": np.ones(2)}, None)
    mine = {"evaluation": "e", "config_fingerprint": "f", "checkpoint_sha256": "c"}
    items.write(items.path(folder.parent, "e", "xnli", "test", "de"), kept, mine)
    assert files_below(tmp_path) == {"a/b/predictions/xnli/test-de.tsv", "a/b/items/e/xnli.test-de.npz"}


@pytest.mark.parametrize("key", ["task", "language", "split", "model", "intermediate", "target", "evaluation", "study"])
def test_names_in_results_are_no_paths(tmp_path, key):
    """A study folder of somebody else: its report is written into its report/, or refused."""
    workdir = tmp_path / "a/b/c/study"
    rows = folders.study(workdir, {"none": 0.0, "mnli": 0.1}, n=20, seeds=1)
    folders.put(workdir, *({**row, key: f"x/../../../{EVIL}"} for row in rows))
    before = files_below(tmp_path)
    if key in ("task", "language", "split"):
        with pytest.raises(InputError, match=r"is not a name|unknown task"):
            page.write(workdir, 20)
    else:
        page.write(workdir, 20)
    assert {name for name in files_below(tmp_path) - before if not name.startswith("a/b/c/study/report/")} == set()


@pytest.mark.parametrize("name", [EVIL, "/tmp/evil", "a/b", ".hidden"])
def test_names_in_a_config_are_no_paths(tmp_path, name):
    plan = study.Study(study="s", data_dir=str(tmp_path), model={}, evaluations={}, phases={name: None})
    with pytest.raises(InputError, match="cannot be the name of a phase"):
        study.run(plan, tmp_path / "w")
    assert not files_below(tmp_path)


def test_archives_are_left_alone(tmp_path):
    """An archive in a data folder is a file like any other; nothing unpacks it."""
    with tarfile.open(tmp_path / "xnli.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../evil")
        archive.addfile(member, io.BytesIO())
    from jxstilts import tasks

    assert not tasks.available("xnli", str(tmp_path), "test", "de")
    assert files_below(tmp_path) == {"xnli.tar.gz"} and not (tmp_path.parent / "evil").exists()


def test_bundles_say_where_they_come_from():
    """A phase's bundle names the hub id and the commit of its starting point, and of what that started from."""
    from jxstilts.train.phase import _origin

    hub = {"sha256": "a", "provenance": {"source": "o/m", "revision": "c0ffee", "files": {"f": "1"}, "versions": {}}}
    first = {"sha256": "b", "provenance": {"phase": "mnli", "identity": {}, "start": _origin(hub)}}
    origin = {"sha256": "a", "source": "o/m", "revision": "c0ffee", "files": {"f": "1"}}
    assert _origin(first) == {"sha256": "b", "phase": "mnli", "start": origin}
