"""The API through `gradio_client` and curl returns the numbers of the library."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from http_timeouts import TIMEOUT_SECONDS
from PIL import Image

import vizlib
from vizlib.models.families.layouts import to_spatial_map

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"


@pytest.fixture(scope="module")
def client(address) -> Client:
    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": TIMEOUT_SECONDS})


@pytest.fixture(scope="module", params=[RESNET, VIT])
def model(request) -> vizlib.Model:
    return vizlib.load(request.param)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_predict(client, model, photo):
    predictions = client.predict(handle_file(photo), model.name, 3, api_name="/predict")
    for prediction, expected in zip(predictions, model.predict(photo, top=3), strict=True):
        assert (prediction["index"], prediction["label"]) == (expected.index, expected.label)
        assert (prediction["probability"], prediction["logit"]) == pytest.approx(
            (expected.probability, expected.logit), rel=1e-5
        )


@pytest.mark.slow
def test_explain(client, model, photo, few_passes):
    for method in set(vizlib.list_methods(model)) - {"score-cam", "ablation-cam"}:  # a pass for each of many channels
        few = few_passes(method)
        about, overlay = client.predict(handle_file(photo), model.name, method, "church", few, api_name="/explain")
        expected = vizlib.explain(model, photo, method=method, target="church", **few)
        close = (
            1e-2 * expected.heat.abs().max().item()
        )  # in a transformer some maps are what is left of sums that cancel
        assert np.allclose(about["values"], expected.heat.numpy(), rtol=1e-3, atol=close), method
        assert (about["label"], about["notes"]) == ("church", list(expected.notes))
        difference = pixels(overlay).astype(int) - np.asarray(expected.overlay()).astype(int)
        assert np.abs(difference).max() <= 8, method  # a hundredth of the colours' length


def test_explain_with_parameters(client, model, photo):
    parameters = {"layer": model.stages[1], "against": "golf ball"}
    about, _ = client.predict(handle_file(photo), model.name, "grad-cam", "church", parameters, api_name="/explain")
    expected = vizlib.explain(model, photo, method="grad-cam", target="church", **parameters)
    assert np.allclose(about["values"], expected.heat.numpy(), rtol=1e-4, atol=1e-7)


def test_attention(client, photo):
    layer = "blocks.4.attn"
    about, _ = client.predict(handle_file(photo), VIT, layer, "2", "6,8", api_name="/attention")
    expected = vizlib.explain(vizlib.load(VIT), photo, method="raw-attention", layer=layer, head=2, query=(6, 8))
    assert np.allclose(about["values"], expected.heat.numpy())


def test_channels(client, model, photo):
    layer = model.stages[0]
    about, sheet = client.predict(handle_file(photo), model.name, layer, None, api_name="/channels")
    one, _ = client.predict(handle_file(photo), model.name, layer, 5, api_name="/channels")
    maps = to_spatial_map(model.run(photo, layers=[layer]).activations[layer].detach(), model.tokens)
    assert maps is not None
    assert about["shape"] == list(maps.shape)
    assert [row["max"] for row in about["channels"]] == pytest.approx(maps.amax((1, 2)).tolist(), rel=1e-4)
    assert np.allclose(one["values"], maps[5].numpy(), rtol=1e-4, atol=1e-6)
    assert pixels(sheet).size


def test_models(client):
    listed = client.predict(api_name="/models")
    entries = {entry.name: entry for entry in vizlib.list_models()}
    assert {row["name"] for row in listed} == entries.keys()
    assert listed[0] == {
        "name": RESNET,
        "source": "bundled",
        "megabytes": entries[RESNET].size_mb,
        "classes": entries[RESNET].classes,
        "accuracy": entries[RESNET].accuracy,
        "needs_download": False,
    }


def test_compare(client, photo):
    one, other = {"model": RESNET, "target": "church"}, {"model": VIT}
    about = client.predict(handle_file(photo), one, other, "grad-cam", 0.2, api_name="/compare")
    maps = [vizlib.explain(vizlib.load(name), photo, method="grad-cam", target="church") for name in (RESNET, VIT)]
    expected = vizlib.agreement(*maps)
    assert about["correlation"] == pytest.approx(expected.correlation, abs=1e-2)
    assert about["overlap"] == pytest.approx(expected.overlap, abs=1e-2)


def test_report(client, photo):
    page = Path(
        client.predict(handle_file(photo), RESNET, "grad-cam", "church", {"layer": "layer3"}, api_name="/report")
    )
    text = page.read_text(encoding="utf-8")
    values = np.load(io.BytesIO(base64.b64decode(re.findall(r'/x-npz;base64,([^"]+)"', text)[0])))["heat"]
    expected = vizlib.explain(vizlib.load(RESNET), photo, "grad-cam", "church", layer="layer3").heat.numpy()
    assert np.abs(values - expected).max() < 1e-4 * np.abs(expected).max()
    assert page.name == "resnet18-imagenette_grad-cam_4.html"


def test_channels_default_is_the_last_spatial_layer(client, model, photo):
    about, _ = client.predict(handle_file(photo), model.name, "", None, api_name="/channels")
    assert about["layer"] == model.cam_layer


def test_curl_returns_the_same_predictions(address, photo):
    """Upload the photo, call the endpoint and read the result, as in the README."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl on this machine")

    def curl(*arguments: str) -> str:
        ran = subprocess.run(["curl", "-sS", "-m", "120", *arguments], capture_output=True, text=True, check=True)
        return ran.stdout

    api = f"{address.rstrip('/')}/gradio_api"
    (path,) = json.loads(curl("-F", f"files=@{photo}", f"{api}/upload"))
    request = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, RESNET, 2]}
    event = json.loads(
        curl("-X", "POST", f"{api}/call/predict", "-H", "Content-Type: application/json", "-d", json.dumps(request))
    )
    stream = curl("-N", f"{api}/call/predict/{event['event_id']}")
    assert stream.startswith("event: complete")
    (predictions,) = json.loads(stream.split("data: ", 1)[1])
    expected = vizlib.load(RESNET).predict(photo, top=2)
    assert [row["label"] for row in predictions] == [row.label for row in expected]
    assert [row["probability"] for row in predictions] == pytest.approx([row.probability for row in expected])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("resnet18-imagenete", "saliency", "", {}), "did you mean resnet18-imagenette"),
        ((RESNET, "gradcam", "", {}), "did you mean grad-cam"),
        ((RESNET, "attention-rollout", "", {}), "does not support resnet18-imagenette"),
        ((RESNET, "saliency", "unicorn", {}), "has no class"),
        ((RESNET, "saliency", "", {"steps": 1}), "has no parameter 'steps'"),
    ],
)
def test_invalid_argument_is_one_sentence(client, photo, arguments, sentence):
    with pytest.raises(AppError, match=sentence) as error:
        client.predict(handle_file(photo), *arguments, api_name="/explain")
    assert "\n" not in str(error.value)


def test_only_the_documented_endpoints_are_named(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {
        "/models",
        "/predict",
        "/explain",
        "/attention",
        "/clip",
        "/channels",
        "/compare",
        "/report",
        "/trust",
        "/gradient",
    }
