"""The commands and their options, as argparse reads them. Nothing heavy is imported: `--help` is quick."""

import argparse
import pathlib
import sys

from jxstilts import __version__

TRIM = (
    "a model for some tasks and languages: fewer pieces and rows of embeddings, the same outputs on the data folder's "
    "text. It pays for a few languages only: in all of a benchmark's nearly every piece occurs"
)
CONFIG = "--config=configs/X.py[:args] [--config.KEY=VALUE ...]"
TAKE_CONFIG = ("run", "plan", "check")
KEYS = "Keys of a config: `jxstilts config [KEY]`. A first config: `jxstilts new study NAME`."
KINDS = ("study", "task", "family", "objective")  # of starting files
HELP = {
    "run": f"run a study, or go on with one: {CONFIG}",
    "plan": f"what a study comes to, without running it: {CONFIG}",
    "check": f"compile every training step without running it: {CONFIG}",
    "config": "print every key of a config, or one: type, default, meaning",
    "new": "write a starting file: a study, a task, a model family or an objective of your own",
    "evaluate": "evaluate a bundle or a Hugging Face model, zero-shot",
    "import": "a Hugging Face folder or hub id -> a bundle",
    "trim": TRIM,
    "average": "the mean of several models' parameters -> a bundle",
    "translate_embeddings": "token embeddings of a language that a model has not seen, from word pairs -> a bundle",
    "export": "a bundle -> a folder that Hugging Face's AutoModelFor... loads",
    "score": "score a folder of predictions in XTREME's layout by the official rules",
    "report": "print the tables of a study folder and write its report: a page, tables, figures; or compare two",
    "world": "write the miniature multilingual world: a data_dir of every task, in seconds",
    "tasks": "list the tasks",
    "languages": "list the languages",
    "models": "list model families and their presets",
    "completion": "print a script that completes commands and options in bash or zsh",
}


def docs() -> pathlib.Path:
    """Returns the folder of the pages that messages name (docs/*.md): in an installation, or in a checkout."""
    package = pathlib.Path(__file__).parent
    return next((path for path in (package / "docs", package.parent / "docs") if path.is_dir()), package / "docs")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line; `command` is the name of the command that was given."""
    whole = argparse.ArgumentParser(
        prog="jxstilts", description=sys.modules["jxstilts"].__doc__, epilog=f"The pages docs/*.md lie in\n  {docs()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # a path is not to be wrapped
    )  # fmt: skip
    whole.add_argument("--version", action="version", version=f"jxstilts {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in HELP.items():
        sub = commands.add_parser(name, help=text, description=text, epilog=KEYS if name in TAKE_CONFIG else None)
        if name in OPTIONS:
            OPTIONS[name](sub)
    return whole


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="the study's folder")
    parser.add_argument("--only", default="", help="comma-separated globs: phases and evaluations, and what they need")
    parser.add_argument("--shard", default="", help="i/n: one of n workers, on any machines, that share the folder")
    _processes(parser)


def _plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", default="", help="the study's folder: what is done, and how fast it was")
    parser.add_argument("--only", default="", help="as for run")
    parser.add_argument("--tokens_per_second", type=float, default=0.0, help="speed of training; default: as measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topology", default="", help="a TPU slice that need not be here, such as v5e:4x8")
    parser.add_argument("--device_memory", default="", help="24GiB, or a device such as l4; default: what is here")
    parser.add_argument("--only", default="", help="as for run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "key", nargs="?", default="", help="its path, as phases.mnli.optimizer.clip, or its end; default: all keys"
    )
    parser.add_argument("--markdown", action="store_true", help="all of them as docs/config.md has them")


def _new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}")
    parser.add_argument("name", help="writes NAME.py; an existing file is never overwritten")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help="a bundle, a Hugging Face folder or a hub id")
    add("--tasks", required=True, help="comma-separated names, see `jxstilts tasks`; or xtreme, xtreme-r")
    add(
        "--languages", default="", help="comma-separated; default: all of each task; pairs: all pairs of languages, a-b"
    )
    add("--data_dir", required=True)
    add("--out", required=True, help="folder for results.jsonl and predictions/")
    add("--head", help="name of the head, where the model has several")
    add("--split", default="", help="default: dev where a task has one, else test")
    add("--limit", type=int, default=0, help="rows per language; 0 = all")
    add("--protocol", default="authors", help="lengths, layers, ...: authors, xtreme or xtreme_r")
    add("--max_length", type=int, default=0, help="tokens; 0 = by the protocol")
    _retrieval(parser)
    add(
        "--unknown_tags",
        default="miss",
        help="tagging: words whose gold tag the head cannot predict: miss or leave_out",
    )
    add("--question_noise", type=float, default=0.0, help="questions: share of letters to change")
    add("--tokens_per_batch", type=int, default=0, help="0 = as suits the device")
    add("--dtype", default="float32", help="float32 or bfloat16")
    _processes(parser)


def _retrieval(parser: argparse.ArgumentParser) -> None:
    """Options of an evaluation that say how sentences become vectors."""
    add = parser.add_argument
    add(
        "--layer",
        default="",
        help="retrieval: hidden state (0 = embeddings, -1 = last), or all for a curve; default: by protocol",
    )
    add("--sentence", default="", help='retrieval: "protocol" takes its hidden state of an embedding model too')
    add("--prefix", help="retrieval: text before each sentence; default: by the model's recipe")
    add(
        "--lower_case",
        action="store_true",
        help="LAReQA, Mewsli-X: texts in lower case, as XTREME-R's release for XLM-R",
    )
    add("--pooling", default="", help="retrieval: mean, mean_without_specials or first")
    add("--subtract_means", action="store_true", help="retrieval: take from each side the mean of its embeddings first")


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="folder, or hub id owner/name[@revision]")
    parser.add_argument("target")
    parser.add_argument("--force", action="store_true", help="replace the bundle that the target holds")
    parser.add_argument("--adapter", help="a PEFT folder of LoRA for the model; it is named after the folder")
    parser.add_argument("--merge", action="store_true", help="add the model's LoRA to its weights")
    parser.add_argument("--prefix", help='of an embedding model: text before each sentence, such as "query: "')


def _trim(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a bundle, a Hugging Face folder or a hub id")
    parser.add_argument("target")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--tasks", required=True, help="comma-separated, those of training too; or xtreme: all splits")
    parser.add_argument("--languages", default="", help="comma-separated; default: all of each task")
    parser.add_argument("--force", action="store_true", help="replace the bundle that the target holds")


def _average(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", help="bundles, phases, Hugging Face folders: alike but for values")
    parser.add_argument("target")
    parser.add_argument("--force", action="store_true", help="replace the bundle that the target holds")


def _translate_embeddings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a bundle, a Hugging Face folder or a hub id")
    parser.add_argument("target")
    parser.add_argument("--pairs", required=True, help="a file of word TAB translation into a language that it knows")
    parser.add_argument("--keep", default="", help="comma-separated files of text whose pieces stay as they are")
    parser.add_argument("--force", action="store_true", help="replace the bundle that the target holds")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle")
    parser.add_argument("target")
    parser.add_argument("--head", help="name of the head to export; default: the only one")
    parser.add_argument("--adapter", help="write this LoRA of the bundle, as PEFT's folder; --head goes with it")
    parser.add_argument("--merge", action="store_true", help="add the bundle's LoRA to its weights")
    parser.add_argument("--encoder_only", action="store_true", help="leave all heads out")


def _score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictions", required=True, help="folder of TASK/test-XX.tsv or .json")
    parser.add_argument("--labels", required=True, help="folder of the same; questions also as SQuAD-format JSON")
    parser.add_argument("--tasks", default="", help="comma-separated; default: all that have a folder in both")
    parser.add_argument("--languages", default="", help="comma-separated; default: all of each task")
    parser.add_argument("--split", default="test", help="test, or dev (dev-XX files; tasks without a dev set: test)")
    parser.add_argument("--benchmark", default="xtreme")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir")
    parser.add_argument("other", nargs="?", default="", help="a second study folder, which is compared with the first")
    parser.add_argument("--draws", type=int, help="resamples of each interval; default: 10,000")


def _world(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="new or empty")
    parser.add_argument("--size", default="small", help="tiny (for tests) or small")
    parser.add_argument("--seed", default="0", help="a whole number")
    parser.add_argument(
        "--vary", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
        help="change a language, such as de.word_order=SOV; without a code, all that are invented",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace the world that the folder holds")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", help="bash or zsh")


def _processes(parser: argparse.ArgumentParser) -> None:
    """Options of a command that several processes run together; also JXSTILTS_PROCESSES etc. in the environment."""
    parser.add_argument("--processes", default="", help="how many run this together, or slurm, or tpu (docs/launch.md)")
    parser.add_argument("--process", default="", help="which of them this is, from 0")
    parser.add_argument("--coordinator", default="", help="HOST:PORT, where the others find process 0")
    parser.add_argument("--process_timeout", default="", help="seconds to wait for one of them; default: 1800")


OPTIONS = {
    "run": _run, "plan": _plan, "check": _check, "config": _config, "new": _new, "evaluate": _evaluate,
    "import": _import, "trim": _trim, "average": _average, "translate_embeddings": _translate_embeddings,
    "export": _export, "score": _score, "report": _report, "world": _world, "completion": _completion,
}  # fmt: skip
