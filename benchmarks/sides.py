"""The two sides of the comparison, with the same weights: this package's step, and Hugging Face's model in PyTorch.

Each has `train(batches) -> losses` (whole optimizer steps), `forward(batches)` (the encoder alone, no dropout) and
`logits(batch)` (of the task's head, no dropout). Batches are those of `jxstilts.data.batching`, one example per row;
each call returns when everything is computed.
"""

import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from jxstilts.runtime import InputError


def build(options: Any, config: Any, spec: Any, steps: int) -> tuple["Ours", "Theirs"]:
    """Returns both sides with the same random weights, taken to PyTorch through a Hugging Face folder.

    config: the encoder's; spec: the HeadSpec; steps: length of the learning rate's schedule.
    """
    import jax

    from jxstilts.models import export, huggingface
    from jxstilts.models.layers import Compute
    from jxstilts.models.model import Model
    from jxstilts.train.optimizer import Optimizer

    model = Model(config, (spec,), Compute(dtype=options.dtype, attention=options.attention))
    params = jax.jit(model.init)(jax.random.key(options.seed))
    recipe = Optimizer(learning_rate=1e-5, warmup=0.1, weight_decay=0.01)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model"
        export.to_huggingface(huggingface.Loaded(model, params), path)
        theirs = Theirs(path, spec.type, recipe, steps, options)
    return Ours(model, spec.name, params, recipe, steps, options.seed), theirs


class Ours:
    """This package's model and train step, built as a training phase builds them, on a mesh of one device."""

    def __init__(self, model: Any, head: str, params: Any, recipe: Any, steps: int, seed: int):
        import jax

        from jxstilts.eval import predict
        from jxstilts.mesh import make_mesh
        from jxstilts.train import objectives, optimizer, step

        self.model, self.mesh, self._head = model, make_mesh({}, jax.devices()[:1]), head
        self.recipe = recipe, steps, seed
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        optim = optimizer.make(recipe, steps)
        shardings, _ = step.state_shardings(model, optim, self.mesh)
        self.state = jax.jit(lambda p: step.new_state(p, optim, seed), out_shardings=shardings)(params)
        context = objectives.Context(model.config.vocab_size, model.config.vocab_size - 1, ())
        self._step = step.make_train_step(model, {head: step.Loss(head)}, optim, self.mesh, context=context)
        self._encode = jax.jit(model.encode, compiler_options=predict.compiler_options())  # as evaluation has it
        self._predict = jax.jit(lambda params, batch: model.predict(params, head, batch)["logits"])

    def training(self, rows: Any) -> "Ours":
        """Returns this side with the token embeddings that a phase trains (`train.vocabulary.Rows`)."""
        tree = self.state["params"]
        embeddings = tree["encoder"]["embeddings"]
        small = {**embeddings, "tokens": embeddings["tokens"][rows.ids]}
        params = {**tree, "encoder": {**tree["encoder"], "embeddings": small}}
        return Ours(rows.model(self.model), self._head, params, *self.recipe)

    def _put(self, batch: dict) -> dict:
        from jxstilts.mesh import put_batch

        return put_batch(batch, self.mesh)

    def train(self, batches: list[dict]) -> list[float]:
        import jax

        losses = []
        for batch in batches:
            self.state, metrics = self._step(self.state, {self._head: self._put(batch)})
            losses.append(metrics["loss"])
        jax.block_until_ready(self.state)
        return [float(loss) for loss in losses]

    def forward(self, batches: list[dict]) -> None:
        for batch in batches:
            self._encode(self.state["params"], self._put(batch)).block_until_ready()

    def logits(self, batch: dict) -> np.ndarray:
        """-> [B, 1, C], or [B, T, 2] (start, end)."""
        return np.asarray(self._predict(self.state["params"], self._put(batch)))

    def training_flops(self, lengths: np.ndarray) -> float:
        """Floating-point operations of a training pass over examples of these lengths, without padding."""
        from jxstilts.models.model import family_module

        per_token = family_module(self.model.family).training_flops
        return float(sum(n * per_token(self.model.config, n) for n in lengths.tolist()))


class Theirs:
    """transformers' model and a PyTorch train step by common good practice: sdpa, fused AdamW, bfloat16 by autocast."""

    def __init__(self, folder: pathlib.Path, kind: str, recipe: Any, steps: int, options: Any):
        import torch
        import transformers

        auto = {
            "classification": transformers.AutoModelForSequenceClassification,
            "span": transformers.AutoModelForQuestionAnswering,
        }[kind]
        self.kind, self.clip, self.bfloat16 = kind, recipe.clip, options.dtype == "bfloat16"
        self.accumulation = options.accumulation  # batches that make one optimizer step
        self.device = torch.device("cuda" if options.device == "gpu" else "cpu")
        self.model = auto.from_pretrained(folder, attn_implementation="sdpa").to(self.device)
        spared, decayed = [], []
        for name, parameter in self.model.named_parameters():
            (spared if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True,
        )  # fmt: skip
        self.schedule = transformers.get_linear_schedule_with_warmup(self.optimizer, int(recipe.warmup * steps), steps)
        whole, encoder = self.model, self.model.roberta
        self.whole, self.encoder = map(torch.compile, (whole, encoder)) if options.compile else (whole, encoder)

    def _put(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(array).long().to(self.device)

    def _inputs(self, batch: dict) -> dict:
        return {"input_ids": self._put(batch["tokens"]), "attention_mask": self._put(batch["segments"] > 0)}

    def _autocast(self):
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _scores(self, model: Any, batch: dict) -> list:
        """Float32 logits: [[B, C]], or the start's and the end's [[B, T], [B, T]].

        Span scores at padding are masked, so that both sides minimise the same loss; transformers' own includes them.
        """
        import torch

        inputs = self._inputs(batch)
        with self._autocast():
            found = model(**inputs)
        if self.kind == "classification":
            return [found.logits.float()]
        padding, lowest = inputs["attention_mask"] == 0, torch.finfo(torch.float32).min
        return [scores.float().masked_fill(padding, lowest) for scores in (found.start_logits, found.end_logits)]

    def train(self, batches: list[dict]) -> list[float]:
        import torch

        self.model.train()
        golds = ["labels"] if self.kind == "classification" else ["start", "end"]
        losses, parts = [], self.accumulation
        for begin in range(0, len(batches), parts):
            loss = 0.0
            for batch in batches[begin : begin + parts]:
                scores = self._scores(self.whole, batch)
                targets = [self._put(batch[gold][:, 0]) for gold in golds]
                own = sum(map(torch.nn.functional.cross_entropy, scores, targets)) / len(golds) / parts
                own.backward()
                loss += own.detach()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            losses.append(loss)
        self._wait()
        return [float(loss) for loss in losses]

    def forward(self, batches: list[dict]) -> None:
        import torch

        self.model.eval()
        with torch.inference_mode(), self._autocast():
            for batch in batches:
                self.encoder(**self._inputs(batch))
        self._wait()

    def logits(self, batch: dict) -> np.ndarray:
        """-> [B, 1, C], or [B, T, 2] (start, end)."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            scores = self._scores(self.model, batch)
        return (scores[0][:, None] if self.kind == "classification" else torch.stack(scores, -1)).cpu().numpy()

    def _wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()


def agreement(ours: Ours, theirs: Theirs, batch: dict, limit: float) -> float:
    """Returns the largest difference between the two sides' logits on a batch, without dropout.

    Raises InputError above `limit`: then they do not compute the same thing, and their times mean nothing.
    """
    real = batch["segments"] > 0 if theirs.kind == "span" else batch["weights"] > 0
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
