"""A model that is ready to use: predictions, vectors, states, files."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jxstilts import config as configs
from jxstilts import forms
from jxstilts import mesh as meshes
from jxstilts.api import own
from jxstilts.data import tokenizer as tokenizers
from jxstilts.data.candidates import Candidates
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.forms.classification import STATES
from jxstilts.models import bundle, export
from jxstilts.models.heads import HeadSpec
from jxstilts.models.layers import Compute
from jxstilts.models.model import Model, Params
from jxstilts.runtime import InputError, suggest
from jxstilts.study.paths import model_path


@dataclasses.dataclass(frozen=True, eq=False)
class Ready:
    """A loaded model on its devices; `load` and `finetune` make it. Nothing changes it.

    loaded: model, parameters and where they are from. mesh: the devices.
    """

    loaded: bundle.Loaded
    mesh: Mesh

    @property
    def model(self) -> Model:
        """The model as pure functions of `params`: `encode`, `predict`, `loss`."""
        return self.loaded.model

    @property
    def params(self) -> Params:
        return self.loaded.params

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer. Raises InputError where the model's folder has none."""
        if self.loaded.tokenizer_dir is None:
            raise InputError("the model has no tokenizer: put its tokenizer.json beside the weights, and load it again")
        return tokenizers.load(self.loaded.tokenizer_dir)

    @property
    def heads(self) -> dict[str, HeadSpec]:
        """The heads by name; `labels` of one are the names that it predicts, in the order of its logits."""
        return {spec.name: spec for spec in self.model.head_specs}

    def evaluator(self, *, language: str | None = None, **options: Any) -> Evaluator:
        """Returns what evaluates this model on the benchmark's tasks.

        language: of the inputs, where the model has language adapters; the benchmark's tasks say theirs.
        options: fields of `eval.evaluator.Options`.
        """
        with own.plainly("options.", "options: "):
            made = configs.build(Options, options, "options")
            configs.at_least("options", made)
            found = Evaluator(self.model, self.params, self.tokenizer, made, self.mesh)
        return found if language is None else found.speaking(language)

    def predict(
        self, rows: Iterable[Any], head: str | None = None, *, columns: Mapping[str, str] | None = None,
        task: str | None = None, candidates: Iterable[str] | None = None, **options: Any,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Returns what a head says of each row, in order.

        What a row is, the head's form says: a text or a pair (a, b); a list of words; (question, context);
        (prompt, [choice, ...]); or a dict, see `forms.Form.rows`. A result is a dict:
            classification: label, probabilities {name: p}, logits {name: x}
            choice: label (its place), text, probabilities [p, ...], logits [x, ...]
            tagging: words, tags, scores (of each word; None where it was cut off), logits float32 [words, labels]
            questions: text, score, start, end (characters of the context), no_answer (how much better it scores to
                give none), answers [{text, score, probability, start, end}, ...], the best first
            text_to_text: said, what the decoder says, without a score; with `task` what that is read as: label,
                or words and tags, or text, each None where nothing can be read; without `task`: text
            candidates given: candidates [{text, place, score}, ...], the `n_best` best ones first; score: the cosine
        Args:
            head: the name of one; needed where several could be meant.
            columns: {the form's key: the rows' own name for it}.
            task: of a text_to_text head, the task whose text form rows take (docs/mt5.md); rows are then those of the
                task's own form. None: a row is a text that is read as it stands; max_answer_length tokens are said.
            candidates: texts that are ranked for each row, a query. A dual encoder's head makes the vectors; of a model
                without one `embed` does.
            options: fields of `eval.evaluator.Options`: max_length, tokens_per_batch, n_best, ... They change speed and
                what is cut off, and nothing else: any batch gives the same numbers. And `language`, that of the rows,
                where the model has language adapters.
        Raises InputError that names the row, or the option.
        """
        if candidates is not None:
            return self._ranked(rows, candidates, head, options)
        spec, evaluator = self.head(head), self.evaluator(**whole_sentences(options))
        said = own.text_task(task, evaluator.options.max_answer_length) if form_of(spec).as_text else None
        if said is None and task is not None:
            raise InputError(f"task={task!r}: the head {spec.name!r} is of the form {spec.type!r}, which reads no task")
        form = form_of(spec) if said is None else said.form
        found = own.examples(form, rows, "predict", columns=columns)
        if not found:
            return []
        found = [{key: value for key, value in example.items() if key != form.gold} for example in found]
        found = [{**example, "id": str(place)} for place, example in enumerate(found)]
        return evaluator.details(said or own.task(form, spec.labels, found, None), found, head=spec.name)

    def _ranked(self, rows: Iterable[str], candidates: Iterable[str], head: str | None, options: dict) -> list[dict]:
        """Ranks candidates for queries, by the vectors of a dual encoder's head or the model's own."""
        duals = {spec.name: spec for spec in self.model.head_specs if spec.type == "dual"}
        if head is not None and head not in duals:
            raise InputError(
                suggest("head of vectors", head, duals) if duals else f"head={head!r}: there is no dual one"
            )
        if head is None and len(duals) > 1:
            raise InputError(f"the model's heads of vectors: {', '.join(duals)}; give head=, the name of one")
        queries, pool = _sentences(rows), _sentences(candidates)
        if not pool:
            raise InputError("candidates: there are none to rank")
        if not queries:
            return []
        evaluator = self.evaluator(**{"max_length": self.model.config.max_length, **options})
        asked = evaluator.options
        if not duals and asked.layer is None and asked.recipe(self.model) is None:
            evaluator = dataclasses.replace(evaluator, options=dataclasses.replace(asked, layer=-1))
        form = forms.get("embedding")
        task = own.task(form, (), queries, None)
        found = {"query": queries, "candidate": Candidates(pool)}
        return evaluator.details(task, found, head=head or next(iter(duals), None))

    def embed(self, texts: Iterable[str], *, layer: int | None = None, **options: Any) -> np.ndarray:
        """Returns a vector for each text, float32 [N, D].

        An embedding model's own recipe (prefix, pooling, dense layer) makes them; of any other model, or with `layer`
        (0 = embeddings, -1 = last), they are that hidden state's mean over the tokens, or what `pooling` says.
        Raises InputError that names the text, or the option.
        """
        evaluator = self.evaluator(layer=layer, **options)
        sentences = _sentences(texts)
        if evaluator.options.recipe(self.model) is not None:
            return evaluator.vectors(sentences)
        return evaluator.embed(sentences, [-1 if layer is None else layer])[0]

    def hidden(self, rows: Iterable[Any], layers: Sequence[int] | None = None, **options: Any) -> list[dict[str, Any]]:
        """Returns the hidden states of each text or pair: {"tokens": [piece, ...], "hidden": float32 [layers, T, D]}.

        layers: 0 = embeddings, -1 = last; None = all L + 1. Raises InputError that names the row, or the option.
        """
        return self._states("hidden", rows, layers, options)

    def attention(
        self, rows: Iterable[Any], layers: Sequence[int] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Returns each text's or pair's weights: {"tokens": [piece, ...], "attention": float32 [layers, heads, T, T]}.

        layers: from 0, -1 = last; None = all L. Raises InputError that names the row, or the option.
        """
        return self._states("attention", rows, layers, options)

    def _states(self, what: str, rows: Iterable[Any], layers: Sequence[int] | None, options: dict) -> list[dict]:
        evaluator, found = self.evaluator(**options), own.examples(STATES, rows, what)
        found = [{**example, "id": str(place)} for place, example in enumerate(found)]
        for example in found:
            example.pop(STATES.gold, None)
        if not found:
            return []
        names = self.tokenizer.convert_ids_to_tokens
        states = evaluator.states(found, layers, what == "attention")
        return [{"tokens": names(tokens.tolist()), what: each} for tokens, each in states]

    def head(self, name: str | None = None) -> HeadSpec:
        """Returns a head whose predictions have scores: the one of this name, or the only one. Raises InputError."""
        known = forms.names()
        able = {
            spec.name: spec
            for spec in self.model.head_specs
            if spec.type in known and form_of(spec).has_scores and form_of(spec).head_type == spec.type
        }
        if name is not None and name not in able:
            raise InputError(suggest("head", name, able))
        if name is None and len(able) != 1:
            have = ", ".join(f"{spec.name} ({spec.type})" for spec in self.model.head_specs) or "none"
            none = "none gives predictions; fine-tune the model first, or give candidates= to rank"
            what = "give head=, the name of one" if able else none
            raise InputError(f"the model's heads: {have}; {what}")
        return next(iter(able.values())) if name is None else able[name]

    def save(self, folder: str | pathlib.Path) -> str:
        """Writes a bundle, with the tokenizer, in place of an older one; returns the SHA-256 of the parameters."""
        return bundle.save(
            folder, self.model, self.params,
            tokenizer_files=self.loaded.tokenizer_dir, provenance=self.loaded.meta.get("provenance"),
        )  # fmt: skip

    def export(self, folder: str | pathlib.Path, *, head: str | None = None, encoder_only: bool = False) -> list[str]:
        """Writes a Hugging Face folder (`models.export.to_huggingface`); returns the parameters that it leaves out."""
        return export.to_huggingface(self.loaded, folder, head=head, encoder_only=encoder_only)


def load(
    path: str | pathlib.Path,
    mesh: Mesh | None = None,
    *,
    prefix: str | None = None,
    heads: Iterable[str] | None = None,
    **compute: Any,
) -> Ready:
    """Reads a bundle, a phase's folder, a Hugging Face folder or a hub id.

    Args:
        mesh: of `mesh.make_mesh`; None = all devices, each with rows of its own.
        prefix: of an embedding model: text before each sentence, such as "query: ".
        heads: names of those to read; None = all.
        compute: fields of `models.layers.Compute`, such as dtype="bfloat16".
    Raises InputError when there is no model, or one that is not computed here.
    """
    with own.plainly("compute.", "compute: "):
        kind = configs.build(Compute, compute, "compute")
    mesh = meshes.make_mesh() if mesh is None else mesh
    found = bundle.load(
        model_path(str(path), "path"), compute=kind, heads=None if heads is None else tuple(heads), mesh=mesh
    )
    if prefix is not None:
        found = dataclasses.replace(found, model=found.model.with_prefix(prefix))
    return Ready(found, mesh)


def form_of(spec: HeadSpec) -> forms.Form:
    """Returns the form of a head's predictions."""
    return forms.get(spec.type)


def whole_sentences(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options by which every word of a sentence gets a tag, unless they say otherwise."""
    return {"long_sentences": "split", **options}


def _sentences(texts: Iterable[str]) -> list[dict[str, str]]:
    if isinstance(texts, str | Mapping) or not isinstance(texts, Iterable):
        raise InputError(f"expected a list of texts, got {texts!r:.60}")
    found = []
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {place} is {text!r:.60}; expected a str")
        found.append({"id": str(place), "text": text})
    return found
