"""A training step from shapes alone: compiled for any mesh, no weight allocated, measured from the compiled program."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jxstilts import hlo
from jxstilts.check.chips import Chip
from jxstilts.checkpoint import leaves
from jxstilts.data import batching
from jxstilts.data.features import Features, Field, Texts
from jxstilts.mesh import batch_divisor, param_shardings
from jxstilts.models.model import Model, family_module
from jxstilts.runtime import InputError
from jxstilts.train import frozen, objectives, step, terms, vocabulary
from jxstilts.train import optimizer as optimizers

STEPS = 1000  # of the schedule, which is state: any number gives the same program


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """fields: of the batch (`Form.batch_fields`). rows of `length` tokens with up to `segments` examples or choices."""

    fields: tuple[Field, ...]
    rows: int
    length: int
    segments: int = 1
    room: tuple[int, int] = (1, 1)  # see `data.features.Texts`

    def arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The arrays of a batch, as `batching.assemble` makes them."""
        one = np.zeros(1, np.int32)
        sources = {field.source: one for field in self.fields}
        texts = {
            field.source: Texts(one, np.array([0, 1]), self.room) for field in self.fields if field.kind == "target"
        }
        made = batching.assemble(
            Features(one, np.array([0, 1]), sources, sources, texts), [(0,)],
            fields=self.fields, length=self.length, num_rows=self.rows, max_segments=self.segments, pad_id=0,
        )  # fmt: skip
        return {key: jax.ShapeDtypeStruct(array.shape, array.dtype) for key, array in made.items()}


@dataclasses.dataclass(frozen=True)
class Program:
    """One training step: the streams that it takes together, each with its loss and the shape of its batch."""

    model: Model
    losses: Mapping[str, step.Loss]
    shapes: Mapping[str, BatchShape]
    optimizer: optimizers.Optimizer
    accumulation: int = 1
    freeze: tuple[str, ...] = ()  # see `train.frozen`
    skip_nonfinite: bool = False
    embeddings: int = 0  # rows of the token embeddings that are trained (see `train.vocabulary`); 0 = all

    @property
    def trained(self) -> Model:
        """The model as the step knows it."""
        return vocabulary.with_rows(self.model, self.embeddings) if self.embeddings else self.model

    @property
    def key(self) -> tuple:
        """Equal for programs that differ in names and in what is state."""
        bare = [dataclasses.replace(spec, name="", labels=("",) * len(spec.labels)) for spec in self.model.head_specs]
        heads = dict(zip((spec.name for spec in self.model.head_specs), bare, strict=True))
        places = {name: place for place, name in enumerate(self.shapes)}
        rates = {"learning_rate": 0.0, "warmup": 0.0, "weight_decay": 0.0}

        def term(loss):
            read = tuple(places[name] for name in loss.streams if name in places)
            signal = dataclasses.replace(loss, head="", streams=()).signal("")
            own = loss.optimizer and dataclasses.replace(loss.optimizer, **rates)
            return loss.objective, signal, heads.get(loss.head), read, own

        taken = tuple((shape, term(self.losses[name])) for name, shape in self.shapes.items())
        taken += tuple(term(loss) for loss in self.losses.values() if places.keys() & set(loss.streams))
        optimizer = repr(dataclasses.replace(self.optimizer, **rates))
        extra = tuple(dataclasses.replace(signal, name="") for _, signal in self.model.extra)
        specs = tuple(sorted(heads.values(), key=repr))
        adapters = (self.model.adapters, self.model.language)
        model = (self.model.family, self.model.config, self.model.compute, specs, extra, adapters)
        return model, taken, optimizer, self.accumulation, self.freeze, self.skip_nonfinite, self.embeddings

    @property
    def tokens(self) -> int:
        return sum(shape.rows * shape.length for shape in self.shapes.values())

    @property
    def model_flops(self) -> float:
        """Floating-point operations that the model needs for the step, forward and backward, without the heads."""
        flops = family_module(self.model.family).training_flops
        per_row = {
            name: flops(self.model.config, shape.length // shape.segments) for name, shape in self.shapes.items()
        }
        return sum(per_row[name] * shape.rows * shape.length for name, shape in self.shapes.items())


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. arguments: the state and the batch. weights and optimizer are parts of them.

    outputs: those that do not take the place of an argument. kept: the whole table of token embeddings, beside a state
    that has a part of them. saving: all that is there while such a state is saved whole.
    """

    arguments: int
    weights: int
    optimizer: int
    outputs: int
    temporaries: int
    code: int
    kept: int = 0
    saving: int = 0

    @property
    def total(self) -> int:
        return max(self.arguments + self.outputs + self.temporaries + self.code + self.kept, self.saving)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a program comes to on one device of a mesh. too_large: the compiler's words where it gave up on memory.

    frozen: of the parameters, and of the token embeddings those that do not occur. saved: bytes of moments and
    gradients that a device would hold for them.
    """

    parameters: int
    devices: int
    memory: Memory | None
    cost: hlo.Cost | None
    seconds: float  # of lowering and compiling
    too_large: str = ""
    frozen: int = 0
    saved: int = 0


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A roofline: every operation as fast as the chip's peak rates allow, nothing beside anything else.

    compute: seconds of the matrix products alone; memory: of the traffic with the main memory alone; device: of each
    operation the longer of the two, added; links: of the collectives. mfu: model FLOPs / (seconds * peak).
    """

    compute: float
    memory: float
    device: float
    links: float
    mfu: float

    @property
    def seconds(self) -> float:
        return self.device + self.links

    @property
    def share(self) -> float:
        """Of the collectives in the step."""
        return self.links / self.seconds


def refuse_small(shapes: Mapping[str, BatchShape], accumulation: int, mesh: Mesh, where: str) -> None:
    """Raises InputError where a batch cannot be split over a mesh, and says what to do."""
    unit = batch_divisor(mesh)
    for name, shape in shapes.items():
        key = f"{where}.tasks.{name}.batch_size={shape.rows}"
        if shape.rows < unit:
            raise InputError(
                f"{key}: too small a batch for the mesh: {unit} devices of the data and fsdp axes, and a row cannot be "
                f"split. Take a batch_size of {unit * accumulation}, at most {shape.rows} devices, or "
                f"config.mesh={{'data': {shape.rows}, 'tensor': {-(-mesh.size // shape.rows)}}}"
            )
        if shape.rows % (unit * accumulation):
            raise InputError(
                f"{key} does not divide over {unit} devices of the data and fsdp axes times "
                f"accumulation={accumulation}; make it a multiple of {unit * accumulation}"
            )


def compile(program: Program, mesh: Mesh) -> Compiled:
    """Lowers and compiles a program for a mesh, whose devices may be abstract. CPU devices stand for accelerators."""
    began = time.perf_counter()
    if jax.default_backend() == "cpu" and program.model.compute.attention in ("auto", "xla"):  # which loop on one CPU
        compute = dataclasses.replace(program.model.compute, attention="plain")
        program = dataclasses.replace(program, model=dataclasses.replace(program.model, compute=compute))
    model = program.trained
    size = model.config.vocab_size
    context = objectives.Context(size, size - 1, tuple(range(4)))
    optimizer = terms.optimizer(program.optimizer, program.losses, STEPS, model)
    train_step = step.make_train_step(
        model, program.losses, optimizer, mesh, context=context, accumulation=program.accumulation,
        freeze=program.freeze, skip_nonfinite=program.skip_nonfinite,
    )  # fmt: skip
    params, _ = model.abstract()
    kept = frozen.split(params, program.freeze)[1]
    places = frozen.split(step.gradient_shardings(model, mesh), program.freeze)[1]
    less = {"frozen": _size(kept), "saved": 3 * _on_device(kept, places)}
    parameters, apart = _size(program.model.abstract()[0]), _Apart(program, mesh)
    less = {key: value + getattr(apart, key) for key, value in less.items()}
    state = jax.eval_shape(lambda tree: step.new_state(tree, optimizer, 0, program.freeze), params)
    batches = {name: shape.arrays() for name, shape in program.shapes.items()}
    lowered = train_step.lower(state, batches)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        words = re.sub(r"^RESOURCE_EXHAUSTED: ", "", str(error).strip()).partition("\n")[0]
        return Compiled(parameters, mesh.size, None, None, time.perf_counter() - began, words, **less)
    shardings = compiled.input_shardings[0][0]
    found = compiled.memory_analysis()
    memory = Memory(
        arguments=found.argument_size_in_bytes,
        weights=_on_device(state["params"], shardings["params"]),
        optimizer=_on_device(state["opt_state"], shardings["opt_state"]),
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
        **apart.beside(_on_device(state, shardings)),
    )
    cost = hlo.cost(hlo.read(compiled.as_text()))
    return Compiled(parameters, mesh.size, memory, cost, time.perf_counter() - began, **less)


class _Apart:
    """The token embeddings that a program does not train. frozen: their number; saved: as in `Compiled`."""

    def __init__(self, program: Program, mesh: Mesh):
        self.frozen = self.saved = self.table = self.moments = 0
        if not program.embeddings:
            return
        path, sizes = vocabulary.table(program.model), []
        for model in (program.model, program.trained):
            shapes, axes = model.abstract()
            leaf, place = leaves(shapes)[path], leaves(param_shardings(axes, shapes, mesh)[0])[path]
            spread = leaves(step.gradient_shardings(model, mesh))[path]
            sizes.append((leaf.size, _on_device(leaf, place), _on_device(leaf, spread)))
        (count, self.table, self.moments), (own, _, less) = sizes
        self.frozen, self.saved = count - own, 3 * (self.moments - less)

    def beside(self, state: int) -> dict[str, int]:
        """state: bytes of the small one."""
        return {"kept": self.table, "saving": self.table and state + 2 * self.table + 2 * self.moments}


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in leaves(tree).values())


def _on_device(tree: Any, shardings: Any) -> int:
    """Bytes of a sharded tree on one device."""
    sizes = jax.tree.map(
        lambda x, placed: int(np.prod(placed.shard_shape(x.shape))) * x.dtype.itemsize, tree, shardings
    )
    return sum(jax.tree.leaves(sizes))


def predict(program: Program, compiled: Compiled, chip: Chip) -> Prediction:
    """Returns the shortest time that one step can take on chips of this kind."""
    cost = compiled.cost
    times = [
        (each.flops / chip.flops * each.times, each.bytes / chip.bandwidth * each.times) for each in cost.operations
    ]
    device, links = sum(map(max, times)), cost.sent / chip.links
    peak = chip.flops * compiled.devices
    return Prediction(
        compute=sum(one for one, _ in times),
        memory=sum(other for _, other in times),
        device=device,
        links=links,
        mfu=program.model_flops / ((device + links) * peak),
    )
