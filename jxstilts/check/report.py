"""Compiles the steps of a study, compares their memory with a device's, and says what would help."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from jxstilts.check import examples, phases, program
from jxstilts.check.chips import GIB, Chip
from jxstilts.check.phases import Step
from jxstilts.check.program import Compiled, Prediction, Program
from jxstilts.mesh import make_mesh
from jxstilts.runtime import InputError
from jxstilts.study.config import Study


@dataclasses.dataclass(frozen=True)
class Checked:
    """A step, and what became of it. refused: why it cannot run on this mesh. fits: None where no limit is known."""

    step: Step
    compiled: Compiled | None
    prediction: Prediction | None
    refused: str
    fits: bool | None


def check(
    study: Study,
    mesh: Mesh,
    *,
    limit: int | None = None,
    chip: Chip | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compiles every different step of a study for a mesh, and returns the findings as JSON values.

    limit: bytes of a device's memory. chip: for a prediction of the time. say: gets each step's text when it is known.
    """
    steps, unknown = phases.steps(study)
    rows, helps, shown = [], "", set()
    for step in steps:
        print(f"compiling the step of {step.phase} ...", file=sys.stderr, flush=True)
        found = one(step, mesh, limit, chip)
        row = as_json(found, limit)
        if row["problem"] and found.fits is False and not helps:
            helps = row["helps"] = remedies(study, step, mesh, limit)
        row["batches"] = {}
        for key in step.program.shapes:
            stream = study.phases[step.phase].tasks[key]
            if repr(stream) not in shown:
                shown.add(repr(stream))
                row["batches"][key] = _batch(study, step, key, mesh)
        rows.append(row)
        say(text(row))
    return {
        "study": study.study,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "device_kind": mesh.devices.flat[0].device_kind,
        "memory_limit": limit,
        "steps": rows,
        "unknown": unknown,
        "problems": [row["problem"] for row in rows if row["problem"]],
        "helps": helps,
    }


def one(step: Step, mesh: Mesh, limit: int | None, chip: Chip | None) -> Checked:
    """Compiles one step."""
    try:
        program.refuse_small(
            step.program.shapes, step.program.accumulation, mesh, f"config.phases.{step.phase}"
        )  # fmt: skip
    except InputError as error:
        return Checked(step, None, None, str(error), None)
    compiled = program.compile(step.program, mesh)
    if compiled.memory is None:
        return Checked(step, compiled, None, "", False)
    prediction = program.predict(step.program, compiled, chip) if chip else None
    return Checked(step, compiled, prediction, "", None if limit is None else compiled.memory.total <= limit)


def remedies(study: Study, step: Step, mesh: Mesh, limit: int | None) -> str:
    """Tries, one after the other, what saves memory, until the step fits; says what does, or that nothing did."""
    tried = []
    for words, changed, devices in changes(study, step, mesh):
        try:
            program.refuse_small(changed.shapes, changed.accumulation, devices, "")
        except InputError:
            continue
        print(f"trying {words} ...", file=sys.stderr, flush=True)
        compiled = program.compile(changed, devices)
        size = compiled.too_large or f"{_gib(compiled.memory.total)}"
        if compiled.memory is not None and (limit is None or compiled.memory.total <= limit):
            return f"with {words} it fits: {size} a device"
        tried.append(f"{words} ({size})")
    known = ", ".join(tried) or "nothing"
    return f"tried without success: {known}; take more devices and split the parameters over them (mesh axis fsdp)"


def changes(study: Study, step: Step, mesh: Mesh) -> list[tuple[str, Program, Mesh]]:
    """Returns [(keys in words, the step with them, mesh)], the cheapest first, each with those before it."""
    given, made, words = step.program, [], []

    def add(text: str, changed: Program, devices: Mesh = mesh) -> Program:
        words.append(text)
        made.append((" and ".join(words), changed, devices))
        return changed

    compute = given.model.compute
    if compute.dtype == "float32":
        compute = dataclasses.replace(compute, dtype="bfloat16")
        given = add("config.compute.dtype=bfloat16", _computed(given, compute))
    if compute.remat == "none":
        given = add("config.compute.remat=full", _computed(given, dataclasses.replace(compute, remat="full")))
    split = mesh
    if mesh.size > 1 and mesh.shape["fsdp"] == 1 and mesh.shape["tensor"] == 1:
        split = make_mesh({"fsdp": -1}, list(mesh.devices.flat))
        add("config.mesh.data=1 and config.mesh.fsdp=-1", given, split)
    rows = min(shape.rows for shape in given.shapes.values()) // (split.shape["data"] * split.shape["fsdp"])
    where = f"config.phases.{step.phase}" if step.phase in study.phases else "config.grid.phase"
    count = given.accumulation * 2
    while count <= rows:
        if words and ".accumulation" in words[-1]:
            words.pop()
        add(f"{where}.accumulation={count}", dataclasses.replace(given, accumulation=count), split)
        count *= 2
    phase = study.phases.get(step.phase)
    if not given.freeze and phase and phase.init != "random":  # last, since it changes what is learnt
        last = made[-1][1] if made else given
        fewer = dataclasses.replace(last, freeze=("embeddings",), embeddings=0)
        add(f"{where}.freeze=('embeddings',)", fewer, split)
    return made


def _computed(given: Program, compute: Any) -> Program:
    return dataclasses.replace(given, model=dataclasses.replace(given.model, compute=compute))


def _batch(study: Study, step: Step, key: str, mesh: Mesh) -> str:
    """Returns a real batch in words, or why there is none."""
    lacks = phases.missing(study, step.phase, key)
    if lacks:
        return f"not shown: {lacks}"
    phase, folder = study.phases[step.phase], phases.tokenizer_of(study, step.phase)
    try:
        return examples.describe(phase, key, step.program.model, folder, study.data_dir, mesh)
    except InputError as error:
        return f"cannot be made: {error}"


def as_json(found: Checked, limit: int | None) -> dict[str, Any]:
    """A `Checked` as JSON values. problem: one line, "" where there is none."""
    step, compiled = found.step, found.compiled
    row: dict[str, Any] = {
        "phase": step.phase,
        "phases": list(step.phases),
        "shapes": {key: dataclasses.asdict(shape) for key, shape in step.program.shapes.items()},
        "accumulation": step.program.accumulation,
        "compute": dataclasses.asdict(step.program.model.compute),
        "fits": found.fits,
        "problem": found.refused,
        "bound": step.bound,
        "note": step.note,
        "model_flops": step.program.model_flops,
    }
    if compiled is None:
        return row
    row |= {"parameters": compiled.parameters, "compile_seconds": compiled.seconds}
    row |= {"freeze": list(step.program.freeze), "frozen": compiled.frozen, "saved": compiled.saved}
    row |= {"embeddings": step.program.embeddings}
    if compiled.memory is None:
        return row | _too_large(step, compiled.too_large)
    row["memory"] = dataclasses.asdict(compiled.memory) | {"total": compiled.memory.total}
    row |= {
        "flops": compiled.cost.flops,
        "bytes": compiled.cost.bytes,
        "collectives": compiled.cost.by_kind(),
        "sent": compiled.cost.sent,
        "unknown_loops": list(compiled.cost.unknown_loops),
        "custom_calls": dict(compiled.cost.custom_calls),
    }
    if found.fits is False and limit is not None:
        row |= _too_large(step, f"{_gib(compiled.memory.total)} a device of {_gib(limit)}")
    if found.prediction:
        predicted = found.prediction
        row["prediction"] = dataclasses.asdict(predicted) | {"seconds": predicted.seconds, "share": predicted.share}
    return row


def _too_large(step: Step, why: str) -> dict[str, Any]:
    """A step that does not fit is a problem, but not where its rows are longer than real ones may be."""
    if step.bound:
        return {"fits": None, "bound": f"{step.bound} At that length it does not fit: {why}"}
    return {"problem": f"{step.phase}: does not fit: {why}"}


def text(row: Mapping[str, Any]) -> str:
    """One step for people."""
    streams = " + ".join(f"{key} {shape['rows']} x {shape['length']}" for key, shape in row["shapes"].items())
    others = len(row["phases"]) - 1
    alike = f" (and {others} more phase{'s' if others > 1 else ''} with the same step)" if others else ""
    how = row["compute"]
    lines = [f"{row['phase']}{alike}: {streams}, {how['dtype']}, remat {how['remat']}"]
    if row["accumulation"] > 1:
        lines[0] += f", accumulation {row['accumulation']}"
    if "parameters" in row:
        lines.append(f"  parameters     {row['parameters']:,}")
        if row["frozen"]:
            which = [f"{', '.join(row['freeze'])} frozen"] if row["freeze"] else []
            which += [f"{row['embeddings']:,} token embeddings occur"] if row["embeddings"] else []
            lines[-1] += (
                f", {row['parameters'] - row['frozen']:,} of them trained; {'; '.join(which)}: "
                f"{_gib(row['saved'])} a device of moments and gradients saved"
            )
    if "memory" in row:
        memory = row["memory"]
        lines += [
            f"  memory         {_gib(memory['total'])} a device: arguments {_gib(memory['arguments'])} (weights "
            f"{_gib(memory['weights'])}, optimizer {_gib(memory['optimizer'])}), further outputs "
            f"{_gib(memory['outputs'])}, temporaries {_gib(memory['temporaries'])}, code {_gib(memory['code'])}"
            + (f", all token embeddings {_gib(memory['kept'])}" if memory["kept"] else ""),
            f"  FLOPs          {_count(row['flops'])} a device and step, in matrix products (the model: "
            f"{_count(row['model_flops'])} a step)",
        ]
        kinds = [
            f"{kind} {found['count']} x, {_gib(found['bytes'])} ({_gib(found['sent'])} sent)"
            for kind, found in row["collectives"].items()
        ]
        lines.append(f"  collectives    {'; '.join(kinds) or 'none'}")
        if row["unknown_loops"]:
            lines.append(f"  not known      how often {len(row['unknown_loops'])} loops run: counted once")
        if row["custom_calls"]:
            calls = ", ".join(f"{name} {count} x" for name, count in row["custom_calls"].items())
            lines.append(f"  not counted    FLOPs of {calls}")
    if "prediction" in row:
        predicted = row["prediction"]
        lines.append(
            f"  prediction     {1e3 * predicted['seconds']:.1f} ms a step at the least, MFU {predicted['mfu']:.1%} on "
            f"padded tokens, collectives {predicted['share']:.0%} (a roofline at the chip's peak rates, not a "
            "measurement)"
        )
    if row["fits"] is not None:
        lines.append(f"  fits           {'yes' if row['fits'] else 'NO'}")
    if row["bound"]:
        lines.append(f"  at most        {row['bound']}")
    if row["note"]:
        lines.append(f"  note           {row['note']}")
    if row["problem"]:
        lines.append(f"  problem        {row['problem']}")
    if row.get("helps"):
        lines.append(f"  what helps     {row['helps']}")
    lines += [f"  batch of {key}: {words}" for key, words in row.get("batches", {}).items()]
    return "\n".join(lines)


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"


def _count(number: float) -> str:
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"
