"""What a network brings with it: labels and preprocessing that timm, transformers and open_clip record, used by `wrap`.

Networks of transformers are imitated by modules with such a config; the slow tests use transformers itself.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

import vizlib
from vizlib import ModelError
from vizlib.models.preprocessing import TimmPreprocessing


class Classifier(nn.Module):
    """A network with a `config`, and logits in an object, as those of transformers have."""

    def __init__(self, num_outputs: int = 3, **config: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_outputs))
        id2label = {i: f"LABEL_{i}" for i in range(num_outputs)}
        self.config = SimpleNamespace(**{"model_type": "vit", "id2label": id2label, **config})

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.layers(pixel_values))


def codes(model: vizlib.Model) -> list[str]:
    return [getattr(note, "code", note) for note in model.notes]


def noise(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(height * 1000 + width)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


# ---------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("id2label", [{0: "cat", 1: "dog", 2: "owl"}, {"2": "owl", "0": "cat", "1": "dog"}])
def test_labels_of_a_config_of_transformers(id2label):
    assert vizlib.wrap(Classifier(id2label=id2label)).labels == ("cat", "dog", "owl")


def test_placeholders_are_no_labels():
    assert vizlib.wrap(Classifier()).labels == ("class 0", "class 1", "class 2")


def test_labels_of_another_number_are_not_used():
    assert vizlib.wrap(Classifier(id2label={0: "cat", 1: "dog"})).labels == ("class 0", "class 1", "class 2")


def test_config_with_gaps_is_refused():
    with pytest.raises(ModelError, match="labels has no class 1, but a class 3"):
        vizlib.wrap(Classifier(id2label={0: "cat", 2: "dog", 3: "owl"}))


def test_labels_and_preprocessing_of_a_part_of_a_wrapper():
    inner = Classifier(id2label={0: "cat", 1: "dog", 2: "owl"}, image_size=48)

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = inner

        def forward(self, image):
            return self.model(image).logits

    model = vizlib.wrap(Adapter())
    assert model.labels == ("cat", "dog", "owl")
    assert model.preprocessing.input_size == (48, 48)
    assert codes(model) == ["model.assumed-inner"]
    assert "its part model (Classifier)" in model.notes[0]


def test_label_names_of_timm_with_gaps():
    module: Any = timm.create_model("test_vit", num_classes=3).eval()
    module.pretrained_cfg = {**module.pretrained_cfg, "label_names": {"0": "a", "1": "b", "2": "c"}}
    assert vizlib.wrap(module).labels == ("a", "b", "c")
    module.pretrained_cfg["label_names"] = {"0": "a", "2": "c"}
    assert vizlib.wrap(module).labels == ("a", "class 1", "c")


@pytest.mark.parametrize("labels", [{"cat": 0, "dog": 1, "owl": 2}, {"0": "cat", "1": "dog", "2": "owl"}, "names.json"])
def test_wrap_takes_labels_in_other_forms(labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "owl"}}))
    assert vizlib.wrap(Classifier(), labels=labels).labels == ("cat", "dog", "owl")
    assert vizlib.wrap(Classifier(id2label={0: "a", 1: "b", 2: "c"}), labels=3).labels[2] == "class 2"
    with pytest.raises(ModelError, match="has 3 outputs, but 2 labels were given"):
        vizlib.wrap(Classifier(), labels=2)


# ---------------------------------------------------------------------------------- preprocessing


@pytest.mark.parametrize(
    ("config", "size", "mean", "processor"),
    [
        ({"model_type": "vit", "image_size": 48}, (48, 48), 0.5, "ViTImageProcessor"),
        ({"model_type": "deit", "image_size": [64, 48]}, (64, 48), 0.5, "DeiTImageProcessor"),
        ({"model_type": "dinov2", "image_size": 56}, (56, 56), 0.48145466, "BitImageProcessor"),
        ({"model_type": "convnext", "image_size": 64}, (64, 64), 0.5, "ConvNextImageProcessor"),
        ({"model_type": "clip", "vision_config": SimpleNamespace(image_size=32)}, (32, 32), 0.48145466, "CLIPImagePro"),
        ({"model_type": "levit"}, (224, 224), 0.485, "LevitImageProcessor"),
    ],
)
def test_defaults_of_the_processor_of_a_model_type_are_noted(config, size, mean, processor):
    model = vizlib.wrap(Classifier(**config), name="mine")
    assert model.preprocessing.input_size == size
    assert model.preprocessing.mean[0] == mean
    assert model.tensor(noise(80, 60)).shape[2:] == size
    assert codes(model) == ["model.assumed-processor"]
    assert f"The config of mine does not state how photos are prepared; the defaults of {processor}" in model.notes[0]


def test_size_of_a_config_of_an_unknown_type_is_read():
    model = vizlib.wrap(Classifier(model_type="mine", image_size=48))
    assert model.preprocessing == TimmPreprocessing.from_config({"input_size": (48, 48)})
    assert codes(model) == ["model.assumed-imagenet"]


@pytest.mark.parametrize("nested", [False, True])
def test_processor_config_of_the_folder_is_read_without_a_note(tmp_path, nested):
    config = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.1, 0.2, 0.3], "size": 48}
    if nested:
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    else:
        (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    model = vizlib.wrap(Classifier(_name_or_path=str(tmp_path), image_size=48))
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert model.notes == ()


def test_processor_config_of_a_cached_repository_is_read(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--me--mine" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    config = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    (snapshot / "preprocessor_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = vizlib.wrap(Classifier(_name_or_path="me/mine", _commit_hash="0123"))
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert vizlib.wrap(Classifier(_name_or_path="me/other")).preprocessing.mean == (0.5, 0.5, 0.5)
    assert vizlib.wrap(Classifier(_name_or_path="./gone/folder/of/mine")).preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "preprocessor_config.json is not JSON"),
        ("[]", "preprocessor_config.json must hold a JSON object, not a list"),
        ('{"image_processor_type": "DonutImageProcessor"}', "steps of the image processor DonutImageProcessor"),
    ],
)
def test_processor_config_that_cannot_be_read_is_refused_unless_it_is_replaced(tmp_path, content, message):
    (tmp_path / "preprocessor_config.json").write_text(content)
    module = Classifier(_name_or_path=str(tmp_path))
    with pytest.raises(ModelError, match=message):
        vizlib.wrap(module)
    assert vizlib.wrap(module, preprocessing={"input_size": 48, "mean": 0.5, "std": 0.5}).notes == ()


def test_given_mapping_is_completed_by_what_the_network_records():
    model = vizlib.wrap(Classifier(), preprocessing={"input_size": 48, "crop_pct": 1.0})
    assert model.preprocessing.mean == (0.5, 0.5, 0.5)
    assert codes(model) == ["preprocessing.assumed-mean"]
    assert "the values of ViTImageProcessor" in model.notes[0]
    module = timm.create_model("test_vit").eval()
    model = vizlib.wrap(module, preprocessing={"crop_pct": 0.8})
    recorded = vizlib.wrap(module)
    assert recorded.notes == ()
    assert model.preprocessing.mean == recorded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert model.preprocessing.input_size == (160, 160)


def test_network_of_timm_is_shown_the_size_that_it_was_built_for():
    assert vizlib.wrap(timm.create_model("test_vit", img_size=(96, 128)).eval()).preprocessing.input_size == (96, 128)


def test_image_tower_of_open_clip_brings_its_preprocessing():
    module: Any = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.preprocess_cfg = {"size": 48, "mean": (0.1,) * 3, "std": (0.2,) * 3, "resize_mode": "squash", "mode": "RGB"}
    model = vizlib.wrap(module)
    assert model.preprocessing == TimmPreprocessing((48, 48), "bicubic", 1.0, "squash", (0.1,) * 3, (0.2,) * 3)
    assert model.notes == ()


def test_network_that_records_nothing_notes_what_is_assumed():
    model = vizlib.wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="mine")
    assert codes(model) == ["model.assumed-imagenet"]
    assert model.notes[0].startswith("mine does not state how photos are prepared; the preprocessing of ImageNet is")
    assert model.notes[0] in vizlib.explain(model, noise(300, 300), "saliency").notes
    given = vizlib.wrap(model.module, preprocessing={"input_size": 48, "mean": 0.5, "std": 0.5})
    assert given.notes == ()


def test_wrap_takes_transforms_and_explains_in_their_geometry():
    pipeline: Any = transforms.Compose(
        [transforms.Resize(40), transforms.CenterCrop((32, 36)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    )
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = vizlib.wrap(module, preprocessing=pipeline)
    photo = noise(60, 90)
    assert torch.equal(model.tensor(photo)[0], pipeline(photo))
    attribution = vizlib.explain(model, photo, "saliency")
    assert attribution.heat.shape == (32, 36)
    assert attribution.geometry.visible_box == pytest.approx((6, 18, 54, 72))


# ---------------------------------------------------------------------------------- transformers itself


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["multi_label_classification", "single_label_classification", "regression"])
def test_classifier_and_processor_of_transformers(problem):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=48,
        patch_size=16,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
        problem_type=problem,
    )
    module = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 48, "width": 48}, image_mean=[0.1, 0.2, 0.3])
    model = vizlib.wrap(module, preprocessing=processor)
    photo = noise(60, 90)
    assert model.labels == ("cat", "dog")
    assert model.notes == ()
    expected = processor(images=photo, return_tensors="pt")
    assert torch.allclose(model.tensor(photo), expected["pixel_values"], atol=1e-5)
    logits = module(**expected).logits[0].detach()
    kinds = {"multi": logits.sigmoid(), "single": logits.softmax(0), "regression": None}
    probabilities = kinds[problem.partition("_")[0]]
    for prediction in model.predict(photo):
        assert prediction.logit == pytest.approx(logits[prediction.index].item(), abs=1e-5)
        if probabilities is None:
            assert prediction.probability is None
        else:
            assert prediction.probability == pytest.approx(probabilities[prediction.index].item(), abs=1e-5)
    assumed = vizlib.wrap(module)
    assert assumed.preprocessing.mean == tuple(transformers.ViTImageProcessor().image_mean)
    assert codes(assumed) == ["model.assumed-processor"]


@pytest.mark.slow
def test_image_tower_and_preprocess_of_open_clip():
    open_clip = pytest.importorskip("open_clip")
    tower, _, preprocess = open_clip.create_model_and_transforms("RN50", pretrained=None)
    given = vizlib.wrap(tower.visual, preprocessing=preprocess)
    recorded = vizlib.wrap(tower.visual)
    assert recorded.preprocessing == given.preprocessing
    photo = noise(300, 200)
    assert torch.allclose(given.tensor(photo)[0], preprocess(photo), atol=1e-5)
