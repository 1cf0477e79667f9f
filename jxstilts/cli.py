"""The command line. Exit codes: 0 done; 2 bad input, or a full disk or memory (one line); 75 interrupted but saved (run
the same command again to go on)."""

import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence

from jxstilts import arguments, processes
from jxstilts.runtime import EXIT_BAD_INPUT, EXIT_INTERRUPTED, InputError, Interrupted, explained, writing


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code."""
    gc.set_threshold(20_000, 10, 10)  # importing and tracing make many objects that stay: look at them less often
    code = _main(list(sys.argv[1:] if argv is None else argv))
    processes.finish(code)
    return code


def _main(argv: list[str]) -> int:
    command = None
    try:
        with explained():
            options, rest = arguments.parser().parse_known_args(argv)
            command = options.command
            if rest and command not in arguments.TAKE_CONFIG:
                raise InputError(f"unknown option {rest[0]!r}; see `jxstilts {command} --help`")
            options.rest, options.argv = rest, argv
            code = COMMANDS[command](options) or 0
            with writing("standard output"):
                sys.stdout.flush()
        return code
    except InputError as error:
        return _end(f"jxstilts: error: {error}", EXIT_BAD_INPUT)
    except Interrupted as error:
        return _end(f"jxstilts: {error}. Run the same command again to go on.", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output is gone
        if command in ("run", "evaluate"):
            return _end("jxstilts: the output was closed. Run the same command again to go on.", EXIT_INTERRUPTED)
        return _end("", 0)  # say `head`: it has what it wanted


def _end(text: str, code: int) -> int:
    """Prints a last line and returns the code, also where no line can be printed any more."""
    for stream, line in ((sys.stdout, ""), (sys.stderr, text)):
        try:
            print(line, end="\n" if line else "", file=stream, flush=True)
        except OSError:  # a full disk, a closed pipe: Python would fail again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _processes(options) -> processes.Settings | None:
    return processes.settings(options.processes, options.process, options.coordinator, options.process_timeout)


def _run(options) -> None:
    from jxstilts import config, runtime, study

    shard = _shard(options.shard)
    plan = study.only(study.from_config(config.load(options.rest)), options.only)
    together = _processes(options)
    try:
        with processes.joined(together), runtime.stop_requested() as signals, explained():
            speaks = processes.first()
            stop = processes.agreed(lambda step: bool(signals))
            study.run(plan, options.workdir, stop=stop, shard=shard, command=options.argv)
    except study.Failed:
        if speaks and (pathlib.Path(options.workdir) / "results.jsonl").exists():
            _tables(options.workdir)
        raise
    if plan.evaluations and speaks:
        _write_report(options.workdir)


def _shard(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or not 1 <= int(parts[0]) <= int(parts[1]):
        raise InputError(f"--shard={text}: i/n, worker i of n, such as 1/4")
    return int(parts[0]), int(parts[1])


def _plan(options) -> None:
    from jxstilts import config, mesh, study
    from jxstilts.study import plan

    mesh.all_devices()
    if options.workdir and pathlib.Path(options.workdir).is_file():
        raise InputError(f"--workdir={options.workdir}: a file; give a study's folder")
    wanted = study.only(study.from_config(config.load(options.rest), to_run=False), options.only)
    found = plan.summary(wanted, options.workdir, tokens_per_second=options.tokens_per_second)
    print(json.dumps(found, indent=1) if options.json else plan.text(found))


def _check(options) -> None:
    from jxstilts import check

    check.run(options.rest, options.topology, options.device_memory, options.only, options.json)


def _config(options) -> None:
    from jxstilts.study import reference

    print(
        reference.markdown() if options.markdown else reference.text(options.key), end="" if options.markdown else "\n"
    )


def _new(options) -> None:
    from jxstilts import new

    print(new.write(options.kind, options.name))


def _evaluate(options) -> None:
    from jxstilts import api, mesh, runtime, tracking
    from jxstilts.eval import benchmarks, evaluator, results
    from jxstilts.study.paths import model_path

    options.model = model_path(options.model, "--model")
    names = _names(options.tasks)
    whole = [name for name in names if name in benchmarks.BENCHMARKS]
    if whole and len(names) > 1:
        raise InputError(f"--tasks={options.tasks}: name tasks, or one benchmark ({whole[0]}) alone")
    request = results.Request(
        tasks=() if whole else names,
        benchmark=whole[0] if whole else "",
        languages=results.pairs_of(names) if options.languages == "pairs" else _names(options.languages),
        split=options.split,
        limit=options.limit,
        head=options.head or "",
        all_layers=options.layer == "all",
        options=evaluator.Options(
            protocol=options.protocol, max_length=options.max_length, layer=_layer(options.layer),
            pooling=options.pooling, sentence=options.sentence, prefix=options.prefix,
            unknown_tags=options.unknown_tags, lower_case=options.lower_case, question_noise=options.question_noise,
            subtract_means=options.subtract_means, tokens_per_batch=options.tokens_per_batch,
        ),
    )  # fmt: skip
    results.check(request, "--tasks", "--languages")
    out = runtime.make_folder(options.out, "--out")
    with processes.joined(_processes(options)), runtime.stop_requested() as signals, explained():
        speaks = processes.first()
        runtime.start()
        devices = mesh.make_mesh()
        if speaks:
            tracking.keep_command(out, options.argv)
            results.keep_strata(options.data_dir, out)
            print(f"devices: {tracking.hardware(devices)}", flush=True)
        loaded = api.load(options.model, devices, dtype=options.dtype).loaded
        labels = {
            "study": "evaluate", "phase": "", "model": options.model, "intermediate": "", "target": "", "seed": 0,
            "checkpoint_sha256": loaded.meta["sha256"],
        }  # fmt: skip
        results.add(
            out, "evaluate", request, labels, lambda: loaded,
            data_dir=options.data_dir, cache_dir=out / "cache", digests_dir=out / "cache/digests", mesh=devices,
            stop=processes.agreed(lambda step: bool(signals)),
        )  # fmt: skip
    if speaks:
        _tables(out)


def _score(options) -> None:
    from jxstilts.eval import scoring

    scored = scoring.score(
        options.predictions, options.labels,
        benchmark=options.benchmark, task_names=_names(options.tasks), languages=_names(options.languages),
        split=options.split,
    )  # fmt: skip
    print(json.dumps(scoring.as_json(scored), indent=1) if options.json else scoring.as_text(scored))


def _layer(text: str) -> int | None:
    if text in ("", "all"):
        return None
    if not text.lstrip("-").isdecimal():
        raise InputError(f"--layer={text}: a number, or all")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _new_bundle(options) -> None:
    """Raises InputError, before anything is read, where the target may not be written."""
    from jxstilts import mesh, runtime

    target = pathlib.Path(options.target)
    if target.exists() and not options.force:
        raise InputError(f"{target} exists; give another target, or --force to replace the bundle that it holds")
    mesh.all_devices()
    runtime.make_folder(target.absolute().parent, "the folder of DST")


def _import(options) -> None:
    from jxstilts.data import tokenizer
    from jxstilts.models import adapters, bundle, peft
    from jxstilts.models.checks import check_vocabulary
    from jxstilts.study.paths import model_path

    _new_bundle(options)
    loaded = bundle.load(model_path(options.source, "SRC"))
    if loaded.tokenizer_dir is not None:
        check_vocabulary(loaded.model.config, tokenizer.load(loaded.tokenizer_dir), options.source)
    base = None
    if options.adapter:
        base = bundle.base(loaded)
        loaded = peft.read(loaded, options.adapter, pathlib.Path(options.adapter).resolve().name)
    if options.merge:
        base, loaded = None, adapters.merged(loaded)
    if options.prefix is not None:
        loaded = dataclasses.replace(loaded, model=loaded.model.with_prefix(options.prefix))
    sha = bundle.save(
        options.target, loaded.model, loaded.params,
        tokenizer_files=loaded.tokenizer_dir, provenance=loaded.meta["provenance"], base=base,
    )  # fmt: skip
    heads = ", ".join(f"{spec.name} ({spec.type})" for spec in loaded.model.head_specs) or "none"
    print(f"{options.target}: {loaded.model.family}, heads: {heads}, sha256 {sha}")
    if loaded.tokenizer_dir is None:
        print(f"{options.source} has no tokenizer, nor has the bundle: put its tokenizer.json beside the weights first")
    if loaded.model.recipe:
        print(f"sentence vectors: {loaded.model.recipe}")


def _trim(options) -> None:
    from jxstilts.eval import trim
    from jxstilts.study.paths import model_path

    _new_bundle(options)
    source = model_path(options.model, "MODEL")
    trim.trim(source, options.target, options.data_dir, _names(options.tasks), _names(options.languages))


def _average(options) -> None:
    from jxstilts.models import averaging
    from jxstilts.study.paths import model_path

    _new_bundle(options)
    sources = [model_path(each, "MODEL") for each in options.models]
    print(f"{options.target}: the mean of {len(sources)} models, sha256 {averaging.bundles(sources, options.target)}")


def _translate_embeddings(options) -> None:
    from jxstilts.models import translating
    from jxstilts.study.paths import model_path

    _new_bundle(options)
    translating.translate(model_path(options.model, "MODEL"), options.target, options.pairs, _names(options.keep))


def _export(options) -> None:
    from jxstilts import mesh, runtime
    from jxstilts.models import adapters, bundle, export, peft
    from jxstilts.study.paths import model_path

    mesh.all_devices()
    runtime.make_folder(pathlib.Path(options.target).absolute().parent, "the folder of DST")
    loaded = bundle.load(model_path(options.bundle, "BUNDLE"))
    if options.adapter:
        peft.write(loaded, options.target, options.adapter, options.head)
        print(f"{options.target}: the LoRA {options.adapter}, for its base")
        return
    loaded = adapters.merged(loaded) if options.merge else loaded
    left = export.to_huggingface(loaded, options.target, head=options.head, encoder_only=options.encoder_only)
    print(f"{options.target}; left out: {', '.join(left) or 'nothing'}")


def _report(options) -> None:
    from jxstilts import tracking
    from jxstilts.report import against, comparisons

    if not options.other:
        _write_report(options.workdir, options.draws)
        return
    draws = comparisons.DRAWS if options.draws is None else options.draws
    with _shown("report") as say:
        path = against.write(options.workdir, options.other, draws, say)
    tracking.keep_command(path.parents[1], options.argv)
    print((path.parent / "report.md").read_text(encoding="utf-8").partition("\n## Comparisons")[0].strip())
    print(f"\nthe whole report: {path}")


def _tables(workdir: str) -> None:
    from jxstilts.report import folder, table

    print(table.text(folder.load(workdir)))
    print(f"\nwritten to {table.write(workdir)}", flush=True)


def _write_report(workdir: str, draws: int | None = None) -> None:
    from jxstilts.report import comparisons, page

    _tables(workdir)
    with _shown("report") as say:
        path = page.write(workdir, comparisons.DRAWS if draws is None else draws, say)
    print(f"the whole report: {path}")


@contextlib.contextmanager
def _shown(name: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that shows how far work is: (done, of how many)."""
    from jxstilts import tracking

    progress = tracking.Progress(name, 0)

    def say(done: int, total: int) -> None:
        progress.steps = total
        if total:
            progress.show(done, {})

    try:
        yield say
    finally:
        progress.close()


def _world(options) -> None:
    from jxstilts import miniworld

    if not (options.seed.isascii() and options.seed.isdecimal()):
        raise InputError(f"--seed={options.seed}: a whole number")
    record = miniworld.write(options.folder, options.size, int(options.seed), options.vary, options.force)
    print(
        f"{options.folder}: {record['files']:,} files, {len(record['languages'])} languages, sha256 {record['sha256']}"
    )


def _tasks(options) -> None:
    from jxstilts.tasks import listing

    print("\n".join(listing.lines()))


def _languages(options) -> None:
    from jxstilts.tasks import languages

    for language in languages.LANGUAGES.values():
        print(f"{language.code:<4} {language.name:<22} {language.script}")


def _models(options) -> None:
    from jxstilts.models import model

    for family in model.families():
        for preset, fields in model.family_module(family).PRESETS.items():
            print(f"{family} {preset:<12} {json.dumps(fields)}")


def _completion(options) -> None:
    from jxstilts import completion

    print(completion.script(options.shell), end="")


COMMANDS = {
    "run": _run, "plan": _plan, "check": _check, "config": _config, "new": _new, "evaluate": _evaluate,
    "import": _import, "trim": _trim, "average": _average, "translate_embeddings": _translate_embeddings,
    "export": _export, "score": _score, "report": _report, "world": _world, "tasks": _tasks, "languages": _languages,
    "models": _models, "completion": _completion,
}  # fmt: skip
