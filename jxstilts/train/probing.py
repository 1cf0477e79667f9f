"""Which hidden states' probes a phase makes while it trains: how often, and on which sentences (`eval.probes`)."""

import dataclasses

from jxstilts import tasks
from jxstilts.config import setting
from jxstilts.runtime import InputError, suggest

FORM = "retrieval"  # of the tasks whose sentences stand side by side with their translations


@dataclasses.dataclass(frozen=True)
class Probe:
    """Fresh probes of every hidden state. They read the weights and change nothing."""

    every: int = setting(
        0, "steps between two probes of all hidden states; the last step has one too; 0 = none", least=0
    )
    languages: tuple[str, ...] = setting((), "languages that the probe tells apart, with English")
    task: str = setting("tatoeba", "the retrieval task whose sentences and translations are read")
    limit: int = setting(200, "the first so many sentences of each language; 0 = as many as the smallest has", least=0)

    def due(self, step: int, last: bool) -> bool:
        """Does a step have a probe? last: of the phase."""
        return self.every > 0 and (last or step % self.every == 0)

    @property
    def split(self) -> str:
        """The split whose sentences are read."""
        return "dev" if "dev" in tasks.get(self.task).splits else "test"


def check(probe: Probe, trains: bool, where: str) -> None:
    """Raises InputError for probes that cannot be made. trains: has the phase tasks? where: config path of `probe`."""
    if probe.every <= 0:  # below 0 it is refused, as any number below its least
        return
    if not trains:
        raise InputError(f"{where}.every={probe.every}: a phase that trains has probes; it needs tasks")
    try:
        spec = tasks.get(probe.task)
    except InputError as error:
        raise InputError(f"{where}.task: {error}") from error
    if spec.form.name != FORM:
        able = [name for name in tasks.names() if tasks.get(name).form.name == FORM]
        raise InputError(f"{where}.task={probe.task!r}: expected a task of translated sentences: {', '.join(able)}")
    if probe.limit == 1:
        raise InputError(f"{where}.limit=1: a probe is fitted on some sentences and tested on others")
    if not probe.languages:
        raise InputError(f"{where}.languages is empty: name languages of the task {probe.task!r}")
    known = spec.loadable(probe.split)
    for language in probe.languages:
        if language not in known:
            raise InputError(f"{where}.languages: {suggest(f'language of task {probe.task!r}', language, known)}")


def check_adapters(probe: Probe, language: str, where: str) -> None:
    """Raises InputError for probes of a model whose adapters are those of one language, since they read several."""
    if probe.every and language:
        raise InputError(
            f"{where}.every={probe.every}: the adapters that are on are those of {language}, and a probe reads "
            "sentences of several languages: leave it out (0)"
        )
