"""Domain-adversarial training (Ganin and Lempitsky 2015): a discriminator learns the language, the encoder forgets it.

The discriminator reads the mean of an example's states. Its own gradient goes down its loss; what reaches the encoder
is that gradient times -strength. A Wasserstein critic (Arjovsky et al. 2017; of languages: Chen et al. 2018) may stand
in its place, or an encoder that is drawn to a discriminator that knows nothing (Tzeng et al. 2015).
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jxstilts.config import setting
from jxstilts.models.heads import cross_entropy, segment_means
from jxstilts.models.layers import gelu
from jxstilts.runtime import InputError, suggest
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.train import optimizer as optimizers
from jxstilts.train.objectives import base

FORMS, LABELS = ("reversal", "uniform", "wasserstein"), ("true", "random")
STEEPNESS = 10.0  # of the strength's rise, Ganin and Lempitsky 2015
PLACES = {code: place for place, code in enumerate(LANGUAGES)}  # what batch["language"] counts

Examples = Mapping[str, jax.Array]


@jax.custom_vjp
def reverse(x: jax.Array, strength: jax.Array) -> jax.Array:
    """Returns x; going backward, its gradient times -strength, a traced scalar."""
    return x


reverse.defvjp(lambda x, strength: (x, strength), lambda strength, g: (-strength * g, jnp.zeros_like(strength)))


def ramp(progress: jax.Array, start: float) -> jax.Array:
    """Returns 2 / (1 + exp(-10 p)) - 1 (Ganin and Lempitsky 2015), p the share of what comes after `start`; else 0."""
    share = jnp.clip((progress - start) / (1 - start), 0.0, 1.0)
    return 2 / (1 + jnp.exp(-STEEPNESS * share)) - 1


@dataclasses.dataclass(frozen=True)
class Objective(base.Objective):
    """Which examples are which language, and what the discriminator and its gradient are.

    A penalty is taken at each example's states, where Gulrajani et al. (2017) take points between examples: so a batch
    gives the same number however it is cut.
    """

    WHOLE_VOCABULARY = False
    READS_LANGUAGE = True
    form: str = setting(
        "reversal",
        "what the encoder hears. reversal: the gradient of the discriminator's cross-entropy, reversed; uniform: that "
        "of the cross-entropy between equal shares and what the discriminator says; wasserstein: the discriminator is "
        "a critic Q, and the encoder lowers mean Q(English) - mean Q(others)",
        allowed=FORMS,
    )
    languages: tuple[str, ...] = setting((), "a class for each of these; () = two classes, English or not")
    labels: str = setting(
        "true", "random: a language drawn for each example, the same in every epoch, as a control", allowed=LABELS
    )
    layer: int = setting(-1, "the hidden state that is read; 0 = the embeddings, -1 = the last")
    depth: int = setting(1, "hidden layers of the discriminator (GELU); 0 = it is linear", least=0)
    width: int = setting(1024, "units of each of its hidden layers", least=1)
    dropout: float = setting(0.1, "dropout on each of its hidden layers", least=0)
    strength: float = setting(
        0.1,
        "of the reversed gradient at the end; 0: the discriminator is a probe; below 0: the encoder helps it",
    )
    start: float = setting(0.1, "share of the steps before the strength rises from 0", least=0)
    updates: int = setting(1, "updates of the discriminator in a step, on the same states", least=1)
    clip: float = setting(0.0, "largest absolute value of the discriminator's parameters; 0 = any", least=0)
    penalty: float = setting(0.0, "weight of (|dQ/dx| - 1)^2 of a critic", least=0)

    def __post_init__(self):
        for what, value, known in (("form", self.form, FORMS), ("labels", self.labels, LABELS)):
            if value not in known:
                raise InputError(f"{what}: {suggest(what, value, known)}")
        for code in self.languages:
            if code not in LANGUAGES:
                raise InputError(f"languages: {suggest('language', code, LANGUAGES)}")
        if len(self.languages) == 1 or len(set(self.languages)) < len(self.languages):
            raise InputError(f"languages={self.languages}: two at least, each once; () = English or not")
        if not (0 <= self.start < 1 and 0 <= self.dropout < 1):
            raise InputError(f"start={self.start} and dropout={self.dropout} are shares: from 0 to below 1")
        if self.depth < 0 or self.width < 1 or self.updates < 1 or min(self.clip, self.penalty) < 0:
            raise InputError(
                f"depth={self.depth}, clip={self.clip} and penalty={self.penalty} are 0 or more, width={self.width} "
                f"and updates={self.updates} 1 or more"
            )
        if self.form != "wasserstein" and self.penalty:
            raise InputError(f"penalty={self.penalty} is of form='wasserstein', not of form={self.form!r}")
        if self.form == "wasserstein" and (self.languages or not (self.clip or self.penalty)):
            raise InputError(
                f"form='wasserstein' compares English with the others (languages=(), not {self.languages}) and needs "
                "clip or penalty, without which a critic has no bound"
            )

    def reads_all(self, model):
        """Where it reads another hidden state than the last."""
        return self.layer != -1

    @property
    def classes(self) -> int:
        return len(self.languages) or 2

    def check_languages(self, codes, where):
        missing = [code for code in codes if self.languages and code not in self.languages]
        if missing:
            raise InputError(
                f"{where}.options.languages={self.languages}: {missing[0]!r}, a language of its streams, has no class"
            )

    # The discriminator

    def init(self, model, key):
        """Kernels of variance 1 / fan-in (LeCun et al. 1998)."""
        if not -model.config.layers - 1 <= self.layer <= model.config.layers:
            raise InputError(
                f"layer={self.layer} of {self.name!r}: the model has hidden states 0 to {model.config.layers}"
            )
        sizes = [model.config.width, *[self.width] * self.depth, 1 if self.form == "wasserstein" else self.classes]
        kernel = jax.nn.initializers.lecun_normal()
        return {
            f"layer_{i}": {"kernel": kernel(jax.random.fold_in(key, i), (rows, columns)), "bias": jnp.zeros(columns)}
            for i, (rows, columns) in enumerate(itertools.pairwise(sizes))
        }

    def discriminate(self, own: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """x [..., D] float32 -> logits [..., classes], or of a critic [..., 1]; with a key: with dropout."""
        for i in range(self.depth + 1):
            layer = own[f"layer_{i}"]
            x = x @ layer["kernel"] + layer["bias"]
            if i < self.depth:
                x = gelu(x)
                if key is not None and self.dropout:
                    kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - self.dropout, x.shape)
                    x = jnp.where(kept, x / (1 - self.dropout), 0.0)
        return x

    def optimizer(self, config, steps):
        """With clip and several updates: each update is clipped (Arjovsky et al. 2017, algorithm 1)."""
        own = optimizers.make(config, steps * self.updates)
        if self.clip:
            own = optax.chain(own, _within(self.clip))
        return own if self.updates == 1 else self._repeated(own)

    def _repeated(self, own: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """Makes `updates` of one: each from the gradient on what the step has kept."""

        def init(params):
            return {"own": own.init(params), "steps": jnp.zeros((), jnp.int32)}

        def update(gradients, state, params=None, *, kept=None, **_):
            if not kept or self.name not in kept:  # a step without its streams
                return jax.tree.map(jnp.zeros_like, gradients), state
            first = jax.random.fold_in(jax.random.key(0), state["steps"])

            def mean(tree, key):
                total, weight, _ = self._sums(tree["extra"][self.name], kept[self.name], key, None)
                return total / jnp.maximum(weight, 1e-6)

            def one(turn, carry):
                now, inner = carry
                updates, inner = own.update(jax.grad(mean)(now, jax.random.fold_in(first, turn)), inner, now)
                return optax.apply_updates(now, updates), inner

            last, inner = jax.lax.fori_loop(0, self.updates, one, (params, state["own"]))
            return jax.tree.map(jnp.subtract, last, params), {"own": inner, "steps": state["steps"] + 1}

        return optax.GradientTransformationExtraArgs(init, update)

    # Examples and losses

    def prepare(self, batch, rng, context):
        """Adds NAME/counts [B, classes] for a critic, which compares means: a batch's examples of each class."""
        if self.form != "wasserstein":
            return batch
        found = (jax.nn.one_hot(self._labels(batch), self.classes) * batch["weights"][..., None]).sum((0, 1))
        return {**batch, f"{self.name}/counts": jnp.broadcast_to(found, (len(batch["tokens"]), self.classes))}

    def kept(self, model, batches):
        """The examples of each stream, for several updates of the discriminator."""
        return self._examples(batches) if self.updates > 1 else None

    def loss(self, model, params, batches, rng, progress):
        """Nats per example; of a critic mean Q(others) - mean Q(English). Logs: accuracy or distance, and strength."""
        strength = self.strength * ramp(progress, self.start)
        total, weight, logs = self._sums(self.own(params), self._examples(batches), rng, strength)
        return total, weight, logs | {"strength": (strength, jnp.ones(()))}

    def _labels(self, batch) -> jax.Array:
        """-> int [B, S]: each example's class; of two, 1 is English."""
        if self.labels == "random":
            draw = lambda index: jax.random.randint(jax.random.fold_in(jax.random.key(0), index), (), 0, self.classes)  # noqa: E731
            return jax.vmap(jax.vmap(draw))(batch["index"])
        if not self.languages:
            return (batch["language"] == PLACES["en"]).astype(jnp.int32)
        table = np.zeros(len(PLACES), np.int32)
        table[[PLACES[code] for code in self.languages]] = np.arange(len(self.languages))
        return jnp.asarray(table)[batch["language"]]

    def _examples(self, batches) -> dict[str, Examples]:
        """-> {stream: features [B, S, D] float32, labels, weights [B, S], and counts [B, classes] of the batch}"""
        found = {}
        for name, forward in batches.items():
            batch, hidden = forward.batch, forward.state(self.layer)
            found[name] = {
                "features": segment_means(hidden, batch), "labels": self._labels(batch), "weights": batch["weights"],
            }  # fmt: skip
            if self.form == "wasserstein":
                found[name]["counts"] = batch[f"{self.name}/counts"]
        return found

    def _sums(self, own, examples: Mapping[str, Examples], key, strength):
        """-> (sum of losses, weight, logs). strength None: the features are constants, as of the further updates."""
        total, weight, right = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
        whole = sum(each["counts"].max(0) for each in examples.values()) if self.form == "wasserstein" else None
        for place, each in enumerate(examples.values()):
            own_key = None if key is None else jax.random.fold_in(key, place)
            if self.form == "wasserstein":
                losses, found = self._critic(own, each, own_key, strength, whole)
            else:
                losses, found = self._classifier(own, each, own_key, strength)
            total += (losses * each["weights"]).sum()
            right += (found * each["weights"]).sum()
            weight += each["weights"].sum()
        return total, weight, {"distance" if self.form == "wasserstein" else "accuracy": (right, weight)}

    def _classifier(self, own, each, key, strength):
        """-> (losses, is the class right?) [B, S]"""
        x, labels = each["features"], each["labels"]
        if self.form == "reversal":
            logits = self.discriminate(own, x if strength is None else reverse(x, strength), key)
            return cross_entropy(logits, labels), logits.argmax(-1) == labels
        logits = self.discriminate(own, jax.lax.stop_gradient(x), key)
        losses = cross_entropy(logits, labels)
        if strength is not None:  # a gradient for the encoder, no value
            told = self.discriminate(jax.lax.stop_gradient(own), reverse(x, -strength), key)
            confusion = -jax.nn.log_softmax(told).mean(-1)
            losses += confusion - jax.lax.stop_gradient(confusion)
        return losses, logits.argmax(-1) == labels

    def _critic(self, own, each, key, strength, counts):
        """-> (losses, distance) [B, S], so that each class counts as a whole. counts [2]: of the whole batch."""
        x, sign = each["features"], 1.0 - 2.0 * each["labels"]  # the critic raises Q(English)
        share = counts.sum() * (counts.prod() > 0) / jnp.maximum(counts, 1.0)  # nothing to compare: no loss
        value = self.discriminate(own, x if strength is None else reverse(x, strength), key)[..., 0]
        losses = sign * share[each["labels"]] * value
        found = -losses
        if self.penalty:
            still = jax.lax.stop_gradient(x)
            slopes = jax.grad(lambda y: self.discriminate(own, y, key).sum())(still)
            # The root of 0 has no derivative: padding has weight 0 and features 0, but a slope of its own.
            length = jnp.sqrt(jnp.square(slopes).sum(-1) + 1e-12)
            losses += self.penalty * jnp.square(length - 1.0)
        return losses, found


def _within(bound: float) -> optax.GradientTransformation:
    """Shortens updates so that no parameter leaves [-bound, bound]."""

    def update(updates, params=None):
        return jax.tree.map(lambda u, p: jnp.clip(p + u, -bound, bound) - p, updates, params)

    return optax.stateless(update)
