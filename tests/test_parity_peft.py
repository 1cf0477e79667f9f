"""LoRA against PEFT: its folders are read and written, and both compute the same. Skips without peft and torch."""

import json

import jax
import numpy as np
import pytest
from golden.batches import HERE, one_per_row

from jxstilts.models import adapters, bundle
from jxstilts.models import peft as folders

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GOLDEN = HERE / "xlmr_classification"
MODULES = ["query", "value", "intermediate.dense", "output.dense"]
TOKENS = np.array([[0, 11, 12, 13, 2, 1], [0, 21, 22, 23, 24, 2]], np.int32)


def theirs(model):
    with torch.no_grad():
        mask = torch.tensor(TOKENS != 1).long()
        return model.eval()(input_ids=torch.tensor(TOKENS).long(), attention_mask=mask).logits.numpy()


def ours(loaded):
    model, params = loaded.model, loaded.params
    batch = one_per_row(TOKENS, (TOKENS != 1).astype(np.int32))
    found = jax.jit(model.predict, static_argnums=1)(params, "classification", batch)
    return found["logits"][:, 0]


@pytest.mark.parametrize("rslora", [False, True])
def test_a_folder_of_pefts(rslora, tmp_path):
    auto = transformers.AutoModelForSequenceClassification
    config = peft.LoraConfig("SEQ_CLS", r=4, lora_alpha=6, target_modules=MODULES, use_rslora=rslora)
    torch.manual_seed(0)
    made = peft.get_peft_model(auto.from_pretrained(GOLDEN), config)
    for name, tensor in made.named_parameters():
        if "lora_" in name or "classifier" in name:
            tensor.data.normal_(std=0.1)
    made.save_pretrained(tmp_path / "peft")
    base = bundle.load(GOLDEN)
    loaded = folders.read(base, tmp_path / "peft", "own")
    expected = theirs(made)
    np.testing.assert_allclose(ours(loaded), expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(ours(adapters.merged(loaded)), expected, rtol=0, atol=2e-5)

    folders.write(loaded, tmp_path / "back", "own", "classification")
    again = peft.PeftModel.from_pretrained(auto.from_pretrained(GOLDEN), tmp_path / "back")
    np.testing.assert_allclose(theirs(again), expected, rtol=0, atol=1e-6)
    from safetensors.numpy import load_file

    there, back = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("peft", "back"))
    assert there.keys() == back.keys()
    assert all(np.array_equal(array, back[name]) for name, array in there.items())


def test_lora_on_the_encoder_alone(tmp_path):
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["query"], layers_to_transform=[1])
    made = peft.get_peft_model(transformers.AutoModel.from_pretrained(GOLDEN, add_pooling_layer=False), config)
    made.save_pretrained(tmp_path / "peft")
    loaded = folders.read(bundle.load(GOLDEN), tmp_path / "peft", "own")
    spec = dict(loaded.model.adapters)["own"]
    assert (spec.layers, spec.matrices) == ("1:2", ("layers/query",))
    folders.write(loaded, tmp_path / "back", "own")
    assert json.loads((tmp_path / "back/adapter_config.json").read_text())["modules_to_save"] is None
    body = transformers.AutoModel.from_pretrained(GOLDEN, add_pooling_layer=False)
    peft.PeftModel.from_pretrained(body, tmp_path / "back")
