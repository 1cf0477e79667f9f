"""A fault campaign: studies that are killed again and again, at random and in the middle of what they write.

Whatever was killed, the folder that is there in the end is the one of a run that nothing has stopped.
"""

import collections
import json
import os
import pathlib
import random
import shutil
import time
from collections.abc import Iterator

import faults
import files
import pytest

from jxstilts import tracking

KILLS = max(200, int(os.environ.get("JXSTILTS_KILLS", "0")))
SEED = 0
RUNS, REPORTS = 20, 5  # kills in one study folder
CONFIG = """
from jxstilts.config import complete
from jxstilts.study import Study


def get_config(arg=None):
    nli = {"tasks": {"mnli": {"batch_size": 16, "max_length": 32, "limit": 64, "buckets": 1}}}
    text = {"objective": "mlm", "languages": ("en", "de"), "batch_size": 8, "max_length": 32}
    often = {"optimizer": {"learning_rate": 2e-2}, "save_every": 2, "log_every": 1}
    return complete(Study, {
        "study": "faults", "data_dir": "", "mesh": {"data": 1},
        "model": {"preset": "tiny", "hidden_dropout": 0.1, "attention_dropout": 0.1},
        "tokenizer": {"vocab_size": 400, "model": "bpe", "languages": ("en", "de")},
        "evaluations": {},
        "phases": {"pre": {"tasks": {"text": text}, "steps": 6, **often}},
        "grid": {} if arg == "small" else {
            "models": {"m": "pre"}, "intermediates": ("none", "mnli"), "targets": {"tatoeba": {}, "xnli": {}},
            "seeds": (1,), "training": {"mnli": nli},
            "phase": {"epochs": 1.0, "select": {"metric": "accuracy", "rows": 40, "every": 2}, **often},
            "what": {"limit": 40, "options": {"max_length": 32, "tokens_per_batch": 512}},
        },
    })
"""
# where aimed kills go: (what it does, how often it does that in an unbroken run), in the order of the study
AIMS = (
    ("^tokenizer/", 6), ("^cache/features/", 12), ("^phases/pre/(checkpoints|metrics|tensorboard)", 40),
    (r"^phases/pre/(\.?best|DONE|checkpoints$)", 25), ("m-none-tatoeba|results", 10), ("^cache/features/", 12),
    ("^phases/m-mnli-s1/(checkpoints|metrics|tensorboard)", 40), (r"^phases/m-mnli-s1/(\.?best|DONE|checkpoints$)", 25),
    ("m-none-xnli|m-mnli-tatoeba|results", 20), ("^phases/m-mnli-mnli-s1/(checkpoints|metrics|tensorboard)", 40),
    (r"^phases/m-mnli-mnli-s1/(\.?best|DONE|checkpoints$)", 25), ("m-mnli-xnli|results", 15), ("^report/", 60),
)  # fmt: skip
ANYWHERE = (("leases/|lock|strata|digests|config.json", 12), ("^compile/", 1))


def aims(chance: random.Random, kills: int, places: int) -> Iterator[dict]:
    """Yields what `Server.attempt` takes: two kills of three are aimed, ever later in the first `places` of AIMS."""
    for place in sorted(chance.choices(range(places), k=kills)):
        pattern, often = "|".join(pattern for pattern, _ in AIMS[place:]), AIMS[place][1]  # it, or what comes later
        if chance.random() < 0.15:
            pattern, often = chance.choice(ANYWHERE)
        # just before it, as soon as it is done, and later
        delay = chance.choice((0.0, 1e-6, chance.uniform(0, 0.02), chance.uniform(0, 1.0)))
        aimed = {"pattern": pattern, "number": chance.randint(1, often), "delay": delay, "after": 20.0}
        yield aimed if chance.random() < 0.67 else {"after": chance.uniform(0.2, 5.0)}


class Place:
    """Holds the data and config of a study, runs it unbroken, and then with kills."""

    def __init__(self, root: pathlib.Path, world: pathlib.Path, servers: list[faults.Server], arg: str = ""):
        self.root, self.servers, self.arg = root, servers, arg
        (root / "c.py").write_text(CONFIG)
        text, nli, pairs = "text/common_voice/[de][en].txt", "xtreme/xnli/*-[de][en].tsv", "xtreme/tatoeba/*.deu-*"
        files.part(world, root / "data", "intermediate/mnli/*", text, nli, pairs)
        self.unbroken = root / "unbroken"
        self.counts: collections.Counter = collections.Counter()  # of kills, by (how, stage)
        self.left = 0  # kills that left something half done
        self.finish(self.command(self.unbroken))

    def command(self, workdir: pathlib.Path, shard: str = "") -> list:
        given = {"data_dir": self.root / "data", "cache_dir": workdir / "cache", "compile_cache": workdir / "compile"}
        return [
            "run", f"--config={self.root / 'c.py'}:{self.arg}".removesuffix(":"), f"--workdir={workdir}",
            *(f"--config.{key}={value}" for key, value in given.items()), *([f"--shard={shard}"] if shard else []),
        ]  # fmt: skip

    def finish(self, command: list, workdir: pathlib.Path | None = None) -> None:
        """Runs a command to its end."""
        result = self.servers[0].attempt(command, workdir or self.unbroken)
        assert result["code"] == 0, result["said"]

    def kill(self, server: faults.Server, command: list, workdir: pathlib.Path, aim: dict) -> bool:
        """Runs a command until it is killed; False where it came to its end before. It never ends otherwise."""
        began, before = time.time(), faults.unfinished(workdir)
        result = server.attempt(command, workdir, **aim)
        assert result["killed"] or result["code"] == 0, result["said"]
        if result["killed"]:
            _, aimed, after = result["said"].rpartition(faults.HIT)
            path = after.splitlines()[0] if aimed else faults.newest(workdir, began)
            self.counts["aimed" if aimed else "at a time", faults.stage(path)] += 1
            self.left += bool(faults.unfinished(workdir) - before)
        return result["killed"]

    def begin(self, chance: random.Random, workdir: pathlib.Path) -> None:
        """Makes a folder that holds nothing but what has been compiled, of a whole study most of it."""
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(self.unbroken / "compile", workdir / "compile")
        for path in chance.sample(sorted((workdir / "compile").iterdir()), 0 if self.arg else 2):
            path.unlink()

    def campaign(self, seed: int, runs: int, reports: int) -> int:
        """Kills a study in a new folder so many times, and its report; compares what it comes to. Returns the kills."""
        chance, workdir, kills = random.Random(seed), self.root / f"seed{seed}", 0
        self.begin(chance, workdir)
        while kills < runs:
            for aim in aims(chance, runs - kills, 4 if self.arg else len(AIMS)):
                command = self.command(workdir, "1/2" if chance.random() < 0.3 else "")
                if self.kill(chance.choice(self.servers), command, workdir, aim):
                    kills += 1
                else:  # it came to its end
                    same(self.unbroken, workdir)
                    self.begin(chance, workdir)
        self.two_days_later(workdir)
        while kills < runs + reports:
            if chance.random() < 0.7:  # else it finds what a killed one, or a whole one, has left
                shutil.rmtree(workdir / "report", ignore_errors=True)
            aim = chance.choice((
                {"after": chance.uniform(0.1, 3.0)},
                {"pattern": "^report/", "number": chance.randint(1, 60), "delay": chance.choice((0.0, 1e-6, 0.01))},
            ))  # fmt: skip
            kills += self.kill(chance.choice(self.servers), ["report", workdir], workdir, aim)
        if reports:
            self.finish(["report", workdir], workdir)
            same(self.unbroken, workdir)
            self.two_days_later(workdir)
        shutil.rmtree(workdir)
        return kills

    def two_days_later(self, workdir: pathlib.Path) -> None:
        """Runs the study to its end, when all that was left half done is old: none of it remains."""
        for name in faults.unfinished(workdir):
            os.utime(workdir / name, (time.time() - 2 * 24 * 3600,) * 2)
        self.finish(self.command(workdir), workdir)
        same(self.unbroken, workdir)
        assert not faults.unfinished(workdir)


def content(workdir: pathlib.Path) -> dict[str, object]:
    """Returns {file: what is in it} of a study folder, but for what says when and how fast it was made.

    Of parameters only their SHA-256 counts, which bundle.json holds: how Orbax's files are named is a matter of chance.
    """
    found: dict[str, object] = {}
    unfinished = faults.unfinished(workdir)
    for path in workdir.rglob("*"):
        name = str(path.relative_to(workdir))
        if not path.is_file() or name in unfinished:
            continue
        if path.name == "metrics.jsonl":
            timed = ("examples_per_second", "tokens_per_second", "padded_tokens_per_second", "mfu", "eta_seconds")
            found[name] = [{k: v for k, v in row.items() if k not in timed} for row in tracking.read_rows(path)]
        elif path.name == "results.jsonl":
            found[name] = sorted(path.read_bytes().splitlines())
        elif not {"params", "tensorboard", "compile", "digests"} & set(pathlib.Path(name).parts):
            found[name] = path.read_bytes()
    return found


def same(unbroken: pathlib.Path, workdir: pathlib.Path) -> None:
    expected, found = content(unbroken), content(workdir)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.fixture(scope="module")
def servers():
    made = [faults.Server(1)]
    yield made
    for server in made:
        server.close()


@pytest.fixture(scope="module")
def small(world, tmp_path_factory, servers):
    """One phase, no evaluation."""
    return Place(tmp_path_factory.mktemp("small"), world, servers, "small")


@pytest.mark.slow
def test_a_few_kills(small):
    assert small.campaign(SEED, 5, 0) == sum(small.counts.values()) == 5


@pytest.mark.slow
def test_what_killed_runs_left_goes(small):
    """What is of today stays: someone may be at work on it."""
    workdir = shutil.copytree(small.unbroken, small.root / "left")
    dead = {"host": "h", "machine": "elsewhere", "pid": 1, "token": "t"}
    temporary = ".results.jsonl.7.0a.tmp", "phases/pre/.DONE.7.0a.tmp", "report/.x.7.0a.tmp", "report/tables/.x.0a.tmp"
    leases = ".results.jsonl.lock", "leases/alone", "leases/worker-2-of-2", "cache/features/.0123456789abcdef.lock"
    beside = "..results.jsonl.lock.0123456789abcdef", "leases/.alone.0123456789abcdef.stale"
    entry = "cache/features/.0123456789abcdef.7.0a.tmp"
    for name in (*temporary, *leases, *beside, "phases/pre/checkpoints/2/state", f"{entry}/tokens.npy"):
        files.write(workdir, name, json.dumps(dead))
        os.utime(workdir / name, (time.time() - 2 * 24 * 3600,) * 2)
    os.utime(workdir / entry, (time.time() - 2 * 24 * 3600,) * 2)
    today = {".strata.json.7.0a.tmp", "leases/.worker-1-of-2.0123456789abcdef"}
    for name in today:
        files.write(workdir, name, json.dumps(dead))
    small.finish(small.command(workdir), workdir)
    assert faults.unfinished(workdir) == today
    same(small.unbroken, workdir)


@pytest.mark.slow
def test_hundreds_of_kills(world, tmp_path, servers, capsys):
    """To see it: pytest -q -s -m slow tests/test_faults.py"""
    servers.append(faults.Server(2))  # so that a folder sees processes that order sets differently
    place, began, kills, seed = Place(tmp_path, world, servers), time.monotonic(), 0, SEED
    while kills < KILLS:
        kills += place.campaign(seed, RUNS, REPORTS)
        seed += 1
        with capsys.disabled():
            print(f"seed {seed - 1}: {kills} kills by now, {time.monotonic() - began:.0f} s", flush=True)
    with capsys.disabled():
        print(f"{kills} kills, seeds {SEED} to {seed - 1}; {place.left} left something half done")
        for name in (*faults.STAGES, "start"):
            by = {how: place.counts[how, name] for how in ("at a time", "aimed")}
            print(f"{name:<16}" + "".join(f"{number:>5} {how}" for how, number in by.items()))
    assert kills == sum(place.counts.values()) and place.left > KILLS // 10
    for name in faults.STAGES:
        assert any(place.counts[how, name] for how in ("at a time", "aimed")), name
