"""A dual encoder with shared weights: query and candidate are a vector each, of length 1.

Their product, times a learned scalar that begins at 100, is a score (the model that XTREME-R's release trains for
LAReQA and Mewsli-X). The loss is the cross-entropy of a softmax over the candidates of some queries
of the batch, in one direction, from query to candidate.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jxstilts.models.heads import HeadBase, HeadSpec, cross_entropy
from jxstilts.runtime import InputError

SCALE = 100.0


def contrast(queries, candidates, real, count: int, scale) -> tuple[jax.Array, jax.Array]:
    """Returns (sum of the cross-entropies of each query's own candidate, how many come first).

    queries, candidates: [B, D]; row r is compared with the rows r, r + B/n, r + 2 B/n, ..., n = `count` of them, which
    divides B. real: [B], 0 for rows that take no part. scale: of the products.
    """
    blocks = lambda rows: rows.reshape(count, len(rows) // count, *rows.shape[1:])  # noqa: E731
    real = blocks(real)
    scores = jnp.einsum("nbd,mbd->bnm", blocks(queries), blocks(candidates), precision=jax.lax.Precision.HIGHEST)
    logits = jnp.where(real.T[:, None, :] > 0, scores * scale, jnp.finfo(jnp.float32).min)
    right = jnp.broadcast_to(jnp.arange(count), logits.shape[:2])
    hits = (logits.argmax(-1) == right) * real.T
    return (cross_entropy(logits, right) * real.T).sum(), hits.sum()


@dataclasses.dataclass(frozen=True)
class DualSpec(HeadSpec):
    """negatives: the candidates in a query's softmax, its own among them.

    pooling: the vector, by default the "mean" of the tokens, special ones included; the release's is the "pooler"'s.
    """

    negatives: int = 0


@dataclasses.dataclass(frozen=True)
class Head(HeadBase):
    spec_class: ClassVar[type[HeadSpec]] = DualSpec

    def init(self, key: jax.Array) -> dict:
        return {"scale": jnp.full((), SCALE)}

    @property
    def pooling(self) -> str:
        return self.spec.pooling or "mean"

    def vectors(self, params, hidden, batch) -> jax.Array:
        """hidden [B, T, D] -> [B, S, D] float32, each of length 1 (zero where there is no segment)."""
        found = self.pooled(params, hidden, batch).astype(jnp.float32)
        # not by a norm, whose gradient is not defined where there is no segment
        return found * jax.lax.rsqrt(jnp.maximum(jnp.square(found).sum(-1, keepdims=True), 1e-24))

    def loss(self, params, hidden, batch, rng=None) -> dict:
        """batch: a pair a row, the query its first segment and the candidate its second; weights [B, 2].

        Row r is compared with the rows r, r + B/n, r + 2 B/n, ...: n = `negatives` of them. A step that is cut into
        micro-batches gives each every k-th row (`train.step`), so the same rows meet where k divides the number of
        such blocks; on a mesh they meet over all devices. Rows without a pair take no part.
        """
        rows, count = batch["weights"].shape[0], self.spec.negatives
        if batch["weights"].shape[1] != 2 or not count or rows % count:
            raise InputError(
                f"negatives_per_step={count} does not divide the {rows} rows of a micro-batch; lower `accumulation`, "
                "or make batch_size a multiple of negatives_per_step times accumulation"
            )
        found, real = self.vectors(params, hidden, batch), batch["weights"][:, 1]
        scale = params["heads"][self.spec.name]["scale"]
        loss, hits = contrast(found[:, 0], found[:, 1], real, count, scale)
        return {"loss": (loss, real.sum()), "accuracy": (hits, real.sum())}

    def predict(self, params, hidden, batch) -> dict:
        """-> embeddings [B, S, 1, D] float32."""
        return {"embeddings": self.vectors(params, hidden, batch)[:, :, None]}
