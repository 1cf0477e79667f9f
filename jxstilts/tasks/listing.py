"""The list of tasks that `jxstilts tasks` prints."""

import textwrap
from collections.abc import Iterator

from jxstilts import forms, tasks
from jxstilts.runtime import counted

WIDTH = 120


def lines() -> Iterator[str]:
    """Yields the lines, form by form."""
    specs = [tasks.get(name) for name in tasks.names()]
    for kind in (name for name in forms.names() if any(spec.type == name for spec in specs)):
        yield f"\n{kind}\n{'=' * len(kind)}"
        for spec in (spec for spec in specs if spec.type == kind):
            yield "\n" + textwrap.fill(f"{spec.name}: {spec.description}", WIDTH)
            for key, value in _fields(spec).items():
                if value:
                    line = f"  {key:<11}{value}"
                    yield textwrap.fill(line, WIDTH, subsequent_indent=" " * 13, break_on_hyphens=False)


def _fields(spec: tasks.TaskSpec) -> dict[str, str | None]:
    splits = (f"{split} {spec.sizes[split]:,}" if split in spec.sizes else split for split in spec.splits)
    languages = f"{len(spec.languages)}: {' '.join(spec.languages)}" if len(spec.languages) > 1 else "en"
    if spec.more_languages:
        languages += f"; {len(spec.more_languages)} more when asked for by name"
    if spec.translated:
        languages += "; translations: read if present"
    recipe, head = spec.recipe, spec.train_task
    return {
        "splits": ", ".join(splits) + (" (rows in English)" if spec.sizes else ""),
        "parts": ", ".join(spec.parts),
        "languages": languages,
        "metric": spec.metric or "none",
        "head": head and (head if head == spec.name else f"{head} (trained on {head})"),
        "recipe": recipe
        and f"batch {recipe.batch_size}, length {recipe.max_length}, {counted(recipe.epochs, 'epoch')} "
        f"({recipe.source})",
        "as text": spec.text and f"{spec.name}{tasks.AS_TEXT}: {spec.text.source}",
        "source": spec.url,
        "licence": spec.licence,
    }
