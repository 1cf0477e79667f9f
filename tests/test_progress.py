"""What a run says while it goes: one live line on a terminal, plain lines in a log, numbers and nouns that agree."""

import io

import pytest

from jxstilts import runtime, tracking
from jxstilts.eval import results
from jxstilts.report import folder


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self):
        """The lines as a terminal shows them: what follows a carriage return is written over what stood there."""
        shown = []
        for line in self.getvalue().split("\n"):
            over = ""
            for part in line.split("\r"):
                over = part + over[len(part) :]
            shown.append(over.rstrip())
        return shown


@pytest.fixture
def screen(monkeypatch):
    """Takes the place of stderr from its call on: pytest has its own at the beginning of a test."""

    def begin() -> Terminal:
        monkeypatch.setattr("sys.stderr", found := Terminal())
        monkeypatch.setenv("COLUMNS", "60")
        return found

    return begin


VALUES = {"eta_seconds": 63.0, "loss": 1.5, "tokens_per_second": 100.0, "packing_efficiency": 0.9, "mfu": 0.5}


def test_a_terminal_has_one_line_that_is_rewritten(screen):
    terminal = screen()
    progress = tracking.Progress("nli", 3, later=6000.0)
    progress.show(1, VALUES)
    assert terminal.screen() == ["nli 1/3  ETA 1:03, all phases 2:03  loss 1.5000  100 real t"]  # cut: it never wraps
    progress.note("dev 50.0")
    progress.show(2, {"loss": 1.25})
    progress.show(3, {"loss": 1.0})
    print("results", file=terminal)
    assert terminal.screen() == ["nli: dev 50.0", "nli 3/3  loss 1.0000", "results", ""]


def test_a_line_ends_where_a_phase_ends_before_its_last_step(screen):
    terminal = screen()
    progress = tracking.Progress("nli", 3)
    progress.show(1, VALUES)
    progress.close()
    progress.close()
    print("results", file=terminal)
    assert terminal.screen()[1:] == ["results", ""]


def test_a_log_has_plain_lines(capsys):
    progress = tracking.Progress("nli", 3, every_seconds=0.0)
    progress.show(1, {"loss": 1.5})
    progress.note("dev 50.0")
    tracking.Progress("evaluate, xnli", 1).show(1, {})
    assert capsys.readouterr().err == "nli 1/3  loss 1.5000\nnli: dev 50.0\nevaluate, xnli 1/1\n"


def test_numbers_and_nouns_agree():
    assert [runtime.counted(n, "phase") for n in (0, 1, 2000)] == ["0 phases", "1 phase", "2,000 phases"]


def test_an_evaluation_on_a_world_says_so_in_its_folder(world, tmp_path):
    """Its invented languages have neither the names nor the classes of real ones."""
    results.keep_strata(world, tmp_path)
    found = folder._strata(tmp_path / "strata.json")
    assert found.world and found.title("de") == "de" and set(found.groups) == {"high", "low"}
    results.keep_strata(tmp_path, tmp_path / "other")  # real data
    real = folder._strata(tmp_path / "other/strata.json")
    assert [real.title(code) for code in ("de", "ar-en", "xx")] == ["de German", "ar-en Arabic, English", "xx"]
