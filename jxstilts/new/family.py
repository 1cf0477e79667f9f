"""my_family: BERT's layers without token types. Its name becomes known by JXSTILTS_FAMILIES=my_family.py.

A family is a module with these ten members; jxstilts/models/families/base.py says what each of them is. Begin by
changing one, and take the others from the family that comes nearest.
"""

import dataclasses

from jxstilts.data.template import Template
from jxstilts.models.families import bert
from jxstilts.models.families.bert import heads, huggingface_keys  # noqa: F401  layers of heads, names of tensors
from jxstilts.models.transformer import Encoder, training_flops  # noqa: F401  Encoder is a Flax module: write your own


@dataclasses.dataclass(frozen=True)
class Config(bert.Config):
    """The architecture: BERT's fields, of which one has another default. A new field begins with its default."""

    types: int = 1  # token types: the texts of a pair are told apart by the token between them alone


PRESETS = {  # sizes by name: `preset` of a config's `model`
    "tiny": {"vocab_size": 1000, "width": 32, "layers": 2, "heads": 4, "mlp": 64, "max_positions": 128},
    "small": {"vocab_size": 32000, "width": 384, "layers": 6, "heads": 6, "mlp": 1536},
}
HUB = {}  # hub id of published weights -> their preset
TEMPLATE = Template(types=False)  # how texts become tokens: [CLS] A [SEP] B [SEP]
SENTENCE = "mean"  # what stands for a sentence, where the model was not trained for it
HUGGINGFACE = dataclasses.replace(  # how config.json and the tensors of Hugging Face folders are called
    bert.HUGGINGFACE, model_types={"my_family": ("Bert", {})}
)
