"""The two sides of the comparison, with the same weights: this package's step, and Hugging Face's model in PyTorch.

Each has `train(batches) -> losses` (whole optimizer steps), `forward(batches)` (the encoder alone, no dropout) and
`logits(batch)` (of the task's head, no dropout). Batches are those of `jxstilts.data.batching`, PyTorch's with one
example per row; each call returns when everything is computed.
"""

import dataclasses
import importlib.util
import os
import pathlib
import platform
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import command
from jxstilts.runtime import InputError, start


@dataclasses.dataclass(frozen=True)
class Training:
    """How both sides train. recipe: a `train.optimizer.Optimizer`; steps: length of the learning rate's schedule.

    seed: of this package's dropout. freeze: are the embeddings left as they are? lora: of PyTorch's side, (rank, the
    modules of peft's LoRA).
    """

    recipe: Any
    steps: int
    seed: int = 0
    freeze: bool = False
    lora: tuple[int, list[str]] | None = None


def ready(options: Any) -> str:
    """Readies both libraries for `options.device`, which it returns in words.

    Raises InputError if one of them is not there, or lacks the device.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, so there is nothing to compare with: pip install jxstilts[parity]")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves torch its share of a GPU's memory
    start()
    import torch

    device = command.device(options.device)
    if options.device == "gpu" and not torch.cuda.is_available():
        raise InputError(f"--device=gpu: torch {torch.__version__} sees no CUDA device")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(cores)
    torch.set_float32_matmul_precision("highest" if options.device == "cpu" else "high")  # on GPU TF32, as JAX has it
    torch.manual_seed(options.seed)
    return device.device_kind if options.device == "gpu" else f"{platform.machine()} CPU, {cores} cores"


def build(options: Any, config: Any, spec: Any, steps: int) -> tuple["Ours", "Theirs"]:
    """Returns both sides with the same random weights.

    config: the encoder's; spec: the HeadSpec; steps: length of the learning rate's schedule.
    """
    import jax

    from jxstilts.models.layers import Compute
    from jxstilts.models.model import Model
    from jxstilts.train.optimizer import Optimizer

    model = Model(config, (spec,), Compute(dtype=options.dtype, attention=options.attention))
    params = jax.jit(model.init)(jax.random.key(options.seed))
    recipe = Optimizer(learning_rate=1e-5, warmup=0.1, weight_decay=0.01)
    return pair(options, model, params, Training(recipe, steps, options.seed))


def pair(options: Any, model: Any, params: Any, training: Training) -> tuple["Ours", "Theirs"]:
    """Returns both sides with the weights of a model with one head, taken to PyTorch through a Hugging Face folder."""
    from jxstilts.models import export, huggingface

    (spec,) = model.head_specs
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model"
        export.to_huggingface(huggingface.Loaded(model, params), path)
        theirs = Theirs(path, spec.type, training, options)
    return Ours(model, params, training), theirs


class Ours:
    """This package's model and train step, built as a training phase builds them, on a mesh of one device.

    planned: bytes of the largest train step that was compiled, as the compiler plans them. compiling: seconds that went
    into compiling train steps.
    """

    _table: Any = None  # of a side that trains some of the token embeddings

    def __init__(self, model: Any, params: Any, training: Training):
        import jax

        from jxstilts.eval import predict
        from jxstilts.mesh import make_mesh
        from jxstilts.train import objectives, optimizer, step

        (spec,) = model.head_specs
        self.model, self.mesh, self._head, head = model, make_mesh({}, jax.devices()[:1]), spec.name, spec.name
        self._training, self.parameters = training, sum(leaf.size for leaf in jax.tree.leaves(params))
        optim, freeze = optimizer.make(training.recipe, training.steps), ("embeddings",) if training.freeze else ()
        freeze = ("encoder",) if model.adapters else freeze
        shardings, _ = step.state_shardings(model, optim, self.mesh, freeze)
        made = jax.jit(lambda p: step.new_state(p, optim, training.seed, freeze), out_shardings=shardings)
        self.state, self.planned, self.compiling = made(params), 0, 0.0
        context = objectives.Context(model.config.vocab_size, model.config.vocab_size - 1, ())
        losses = {head: step.Loss(head)}
        self._step = step.make_train_step(model, losses, optim, self.mesh, context=context, freeze=freeze)
        self._compiled: dict[tuple, Any] = {}  # of each shape of batch
        self._encode = jax.jit(model.encode, compiler_options=predict.compiler_options())  # as evaluation has it
        logits = lambda p, batch: model.head(head).logits(p, model.encode(p, batch), batch)  # noqa: E731
        self._logits = jax.jit(lambda p, batch: logits(p, batch).astype("float32"))

    def training(self, rows: Any) -> "Ours":
        """Returns this side with the token embeddings that a phase trains (`train.vocabulary.Rows`).

        Its batches have tokens by their place among the rows.
        """
        from jxstilts.train import vocabulary

        small = rows.model(self.model)
        table = vocabulary.Table(rows, self.model, self.state["params"], self._abstract(small), self._abstract())
        table.decays(self._training.recipe, self._training.steps)
        found = Ours(small, table.take(self.state["params"]), self._training)
        found._table = table
        return found

    def _abstract(self, model: Any = None) -> dict:
        from jxstilts.train import optimizer, step

        optim = optimizer.make(self._training.recipe, self._training.steps)
        return step.abstract_state(model or self.model, optim, self.mesh)[0]

    @property
    def params(self) -> Any:
        """The parameters with all token embeddings."""
        return self.state["params"] if self._table is None else self._table.params(self.state)

    def _put(self, batch: dict) -> dict:
        from jxstilts.mesh import put_batch

        return put_batch(batch, self.mesh)

    def _of_shape(self, batches: dict) -> Any:
        shape = tuple(array.shape for array in batches[self._head].values())
        if shape not in self._compiled:
            began = time.perf_counter()
            self._compiled[shape] = self._step.lower(self.state, batches).compile()
            self.compiling += time.perf_counter() - began
            found = self._compiled[shape].memory_analysis()
            outputs = found.output_size_in_bytes - found.alias_size_in_bytes
            own = found.argument_size_in_bytes + outputs + found.temp_size_in_bytes
            self.planned = max(self.planned, own)
        return self._compiled[shape]

    def train(self, batches: list[dict]) -> list[float]:
        import jax

        losses = []
        for batch in batches:
            placed = {self._head: self._put(batch)}
            self.state, metrics = self._of_shape(placed)(self.state, placed)
            losses.append(metrics["loss"])
        jax.block_until_ready(self.state)
        return [float(loss) for loss in losses]

    def forward(self, batches: list[dict]) -> None:
        for batch in batches:
            self._encode(self.state["params"], self._put(batch)).block_until_ready()

    def logits(self, batch: dict) -> np.ndarray:
        """-> [B, S, C], or of tokens [B, T, C]: tags, or start and end."""
        return np.asarray(self._logits(self.state["params"], self._put(batch)))

    def training_flops(self, lengths: np.ndarray) -> float:
        """Floating-point operations of a training pass over examples of these lengths, without padding."""
        from jxstilts.models.model import family_module

        per_token = family_module(self.model.family).training_flops
        return float(sum(n * per_token(self.model.config, n) for n in lengths.tolist()))


class Theirs:
    """transformers' model and a PyTorch train step by common good practice: sdpa, fused AdamW, bfloat16 by autocast."""

    def __init__(self, folder: pathlib.Path, kind: str, training: Training, options: Any):
        import torch
        import transformers

        auto = {
            "classification": transformers.AutoModelForSequenceClassification,
            "span": transformers.AutoModelForQuestionAnswering,
            "tagging": transformers.AutoModelForTokenClassification,
        }[kind]
        recipe = training.recipe
        self.kind, self.clip, self.bfloat16 = kind, recipe.clip, options.dtype == "bfloat16"
        self.accumulation = options.accumulation  # batches that make one optimizer step
        self.device = torch.device("cuda" if options.device == "gpu" else "cpu")
        self.model = auto.from_pretrained(folder, attn_implementation="sdpa").to(self.device)
        self.model.base_model.embeddings.requires_grad_(not training.freeze)
        self.encoder = self.model.base_model
        if training.lora:
            import peft

            rank, modules = training.lora
            config = peft.LoraConfig("SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules=modules)
            self.model = peft.get_peft_model(self.model, config)
        spared, decayed = [], []
        for name, parameter in self.model.named_parameters():
            if training.lora and not parameter.requires_grad:
                continue
            (spared if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True,
        )  # fmt: skip
        warmup = int(recipe.warmup * training.steps)
        self.schedule = transformers.get_linear_schedule_with_warmup(self.optimizer, warmup, training.steps)
        self.whole = self.model
        if options.compile:
            self.compile()

    def compile(self, **options: Any) -> None:
        """Compiles the model by `torch.compile`, whose options these are."""
        import torch

        self.whole, self.encoder = (torch.compile(part, **options) for part in (self.model, self.model.base_model))

    def _put(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(array).long().to(self.device)

    def _inputs(self, batch: dict) -> dict:
        inputs = {"input_ids": self._put(batch["tokens"]), "attention_mask": self._put(batch["segments"] > 0)}
        return inputs | ({"token_type_ids": self._put(batch["types"])} if "types" in batch else {})

    def _autocast(self):
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _scores(self, model: Any, batch: dict) -> list:
        """Float32 logits: [[B, C]], of tags [[B, T, C]], or the start's and the end's [[B, T], [B, T]].

        Span scores at padding are masked, so that both sides minimise the same loss; transformers' own includes them.
        """
        import torch

        inputs = self._inputs(batch)
        with self._autocast():
            found = model(**inputs)
        if self.kind in ("classification", "tagging"):
            return [found.logits.float()]
        padding, lowest = inputs["attention_mask"] == 0, torch.finfo(torch.float32).min
        return [scores.float().masked_fill(padding, lowest) for scores in (found.start_logits, found.end_logits)]

    def train(self, batches: list[dict]) -> list[float]:
        import torch

        self.model.train()
        losses, parts = [], self.accumulation
        for begin in range(0, len(batches), parts):
            loss = 0.0
            for batch in batches[begin : begin + parts]:
                own = self._loss(batch) / parts
                own.backward()
                loss += own.detach()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            losses.append(loss)
        self._wait()
        return [float(loss) for loss in losses]

    def _loss(self, batch: dict) -> Any:
        from torch.nn.functional import cross_entropy

        scores = self._scores(self.whole, batch)
        if self.kind == "tagging":  # the mean over the tokens with a tag
            return cross_entropy(scores[0].flatten(0, 1), self._put(batch["tags"]).flatten(), ignore_index=-1)
        golds = ["labels"] if self.kind == "classification" else ["start", "end"]
        targets = [self._put(batch[gold][:, 0]) for gold in golds]
        return sum(map(cross_entropy, scores, targets)) / len(golds)

    def forward(self, batches: list[dict]) -> None:
        import torch

        self.model.eval()
        with torch.inference_mode(), self._autocast():
            for batch in batches:
                self.encoder(**self._inputs(batch))
        self._wait()

    def logits(self, batch: dict) -> np.ndarray:
        """-> [B, 1, C], or of tokens [B, T, C]: tags, or start and end."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            scores = self._scores(self.model, batch)
            found = torch.stack(scores, -1) if self.kind == "span" else scores[0]
        return (found[:, None] if self.kind == "classification" else found).cpu().numpy()

    def _wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()


def agreement(ours: Ours, theirs: Theirs, batch: dict, limit: float) -> float:
    """Returns the largest difference between the two sides' logits on a batch, without dropout.

    Raises InputError above `limit`: then they do not compute the same thing, and their times mean nothing.
    """
    real = batch["weights"] > 0 if theirs.kind == "classification" else batch["segments"] > 0
    difference = float(np.abs(ours.logits(batch) - theirs.logits(batch))[real].max())
    if not difference <= limit:
        raise InputError(
            f"the logits of the two sides differ by {difference:.2e}, allowed is {limit:.0e}: they do not compute the "
            "same, so there is nothing to compare"
        )
    return difference


def peak_flops() -> float | None:
    """FLOP/s of one device: the data sheet's, on CPU the better of the two libraries' float32 matrix products."""
    import jax
    import torch

    from jxstilts import tracking

    peak = tracking.peak_flops()
    if peak is None or jax.default_backend() != "cpu":
        return peak and peak / jax.device_count()
    size, times = 1536, []
    matrix = torch.ones(size, size)
    for _ in range(4):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - began)
    return max(peak, 2 * size**3 / min(times))
