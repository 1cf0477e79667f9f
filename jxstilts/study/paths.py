"""What a path to a model means, wherever one is given: on the command line, as a phase's start, in a grid."""

import pathlib

from jxstilts.models import bundle
from jxstilts.runtime import InputError

OF_A_PHASE = ("DONE", "metrics.jsonl", "checkpoints")


def model_path(path: str, where: str) -> str:
    """Returns the path of the model that is meant: of a phase's folder, the model that the phase ended with.

    where: the option or key, for messages. What is neither a phase nor a study is left as it is: a bundle, a Hugging
    Face folder, a hub id. Raises InputError for a phase that has not finished, a study's folder, a file, and a folder
    that may not be read.
    """
    folder = pathlib.Path(path).expanduser()
    given = f"{where}={path!r:.200}"
    try:
        if folder.is_file():
            raise InputError(f"{given} is a file; give a bundle, a Hugging Face folder or a hub id")
        if not folder.is_dir() or bundle.is_bundle(folder):
            return path
        held = {each.name for each in folder.iterdir()}
        if bundle.is_bundle(folder / "best"):
            return str(folder / "best")
        if "phases" in held:
            phases = sorted(each.parent.name for each in folder.glob("phases/[!.]*/best"))
            some = ", ".join(phases[:10]) or "none has finished"
            raise InputError(f"{given} is a study; give one of its phases, as {folder / 'phases/NAME'}: {some}")
    except (OSError, ValueError) as error:  # no right to look, too long for a name, a zero in it
        if isinstance(error, InputError):
            raise
        raise InputError(f"{given}: {getattr(error, 'strerror', None) or error}") from error
    if held & set(OF_A_PHASE):
        raise InputError(f"{given} is a phase that has not finished: it has no best/ yet; run it to its end first")
    return path
