"""A study: phases that start from one another, and evaluations of what they produced.

    config.phases[name]       a `train.phase.Phase`; `init` may name another phase
    config.evaluations[name]  an `Evaluation`: tasks and languages on one phase's best checkpoint
    config.grid               models x intermediate tasks x targets x seeds, which become phases and evaluations
A study folder holds phases/<name>/, results.jsonl, predictions/, items/, report/ and commands.jsonl; failed/ says what
failed and why.
Running the same command again continues.
"""

from jxstilts.study.config import Evaluation, Study, TokenizerConfig, from_config, only, order
from jxstilts.study.grid import Grid
from jxstilts.study.running import Failed, run

__all__ = ["Evaluation", "Failed", "Grid", "Study", "TokenizerConfig", "from_config", "only", "order", "run"]
