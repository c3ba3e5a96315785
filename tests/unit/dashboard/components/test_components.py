"""The data that components send to the browser, and the photos that they receive."""

from __future__ import annotations

import base64
import io
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from dashboard.components.bars import build_bars
from dashboard.components.data_encoding import encode_bytes, encode_floats, encode_photo_and_box
from dashboard.components.error_messages import to_gradio_error
from dashboard.components.linked_heatmaps import ColourScale, build_linked_heatmaps, build_linked_item
from dashboard.components.parameters import build_parameter_menus, parse_parameter_menus
from dashboard.components.patches import MAX_MAP_BYTES, fit_maps_to_budget
from dashboard.components.photo import PhotoInput
from dashboard.components.thumbnails import downsample_map
from dashboard.i18n.language import use_language
from vizlib import ImageError, Prediction
from vizlib.core.geometry import Geometry
from vizlib.core.imagenet_groups import ImageNetClass
from vizlib.models.class_groups import ClassGroup


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_pack_floats_is_lossless():
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    packed = encode_floats(values)
    assert np.array_equal(floats(packed["floats"]).reshape(packed["shape"]), values)


def test_pack_bytes_is_within_half_a_step_of_each_map():
    values = np.random.default_rng(0).normal(size=(2, 3, 7, 5)) * np.array([1, 1000]).reshape(2, 1, 1, 1)
    packed = encode_bytes(values)
    ends = floats(packed["ends"]).reshape(2, 3, 2)
    steps = np.frombuffer(base64.b64decode(packed["bytes"]), np.uint8).reshape(values.shape)
    step = (ends[..., 1] - ends[..., 0])[..., None, None] / 255
    assert (np.abs(ends[..., 0][..., None, None] + steps * step - values) <= step * 0.501).all()
    assert floats(encode_bytes(np.full((1, 2, 2), 3.0))["ends"]).tolist() == [
        3,
        4,
    ]  # no division by zero for a constant map


def test_encode_photo_and_box_scales_the_photo_and_returns_the_box_of_the_input():
    geometry = Geometry.from_timm_transform((300, 600), (224, 224), crop_pct=1.0, crop_mode="center")
    base = encode_photo_and_box(Image.new("RGB", (600, 300), "teal"), geometry, side=840)
    assert (base["width"], base["height"]) == (840, 420)
    assert base["box"] == pytest.approx([0, 0.25, 1, 0.75], abs=0.005)
    assert base["photo"].startswith("data:image/jpeg;base64,")


def test_fit_to_budget_sends_all_heads_or_the_means_and_the_heads_of_one_layer():
    maps = np.random.default_rng(0).random((3, 4, 5, 2, 6))
    assert fit_maps_to_budget(maps, budget=maps.size) == {"maps": encode_bytes(maps)}
    for requested, sent in ((None, 2), (1, 1), (99, 2), (-1, 2)):
        reduced = fit_maps_to_budget(maps, requested, budget=maps.size - 1)
        assert reduced["of"] == sent
        assert reduced["heads"] == encode_bytes(maps[sent])
        means = np.array([[[sum(head[token] for head in layer) / 4 for token in range(5)]] for layer in maps])
        assert reduced["maps"] == encode_bytes(means)
    tiny, base = 12 * 3 * 197 * 196, 12 * 12 * 197 * 196
    assert tiny < MAX_MAP_BYTES < base


def test_build_linked_heatmaps_keeps_values_and_scales():
    heats = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    item = build_linked_item("church", heats, (0, 0.1, 1, 0.9), 0, alt="a map", factors=(1, 0.5))
    value = build_linked_heatmaps(
        [("a model", [item, None])], [ColourScale("value", [(0, 1), (0, 2)])], Image.new("RGB", (90, 60)), label="x"
    )
    sent = value["rows"][0]["items"][0]["maps"]
    assert np.array_equal(floats(sent["floats"]).reshape(sent["shape"]), heats)
    assert (value["width"], value["height"]) == (420, 280)
    assert value["scales"][0]["limits"] == [[0, 1], [0, 2]]


def test_build_bars_adds_the_target_if_it_is_not_among_the_first():
    predictions = [Prediction(i, f"label {i}, other name", 0.5 / (i + 1), 1.0) for i in range(9)]
    assert [row["index"] for row in build_bars(predictions, 0)["rows"]] == [0, 1, 2, 3, 4]
    assert [row["index"] for row in build_bars(predictions, 7)["rows"]] == [0, 1, 2, 3, 4, 7]
    assert build_bars(predictions, 7)["rows"][0]["name"] == "label 0"


def test_build_bars_lists_the_classes_of_a_small_model():
    predictions = [Prediction(i, f"label {i}", 0.5, 1.0) for i in (2, 0, 1)]
    assert build_bars(predictions, 0)["note"].endswith(
        "these 3 classes and always predicts one of them: label 0, label 1, label 2."
    )
    assert build_bars(predictions * 400, 0)["note"] == ""


def test_build_bars_includes_the_ood_note():
    predictions = [Prediction(0, "church", 0.9, 1.0)]
    assert (
        build_bars(predictions, 0, ood_note="This photo is unlike those.")["oodNote"] == "This photo is unlike those."
    )
    assert build_bars(predictions, 0)["oodNote"] == ""


def test_bars_name_groups_that_share_the_probability_and_describe_known_classes():
    groups = [ClassGroup("dog", "animal", 0.8, 118), ClassGroup("cat", "animal", 0.1, 5)]
    groups += [ClassGroup(name, "", probability, 1) for name, probability in (("plant", 0.06), ("food", 0.04))]
    pug, known = Prediction(0, "pug, pug-dog", 0.1, 2.0), ImageNetClass("n02110958", "small dog", ("animal", "dog"))
    value = build_bars([pug], 0, groups=groups, known_classes=[known])
    assert value["groups"] == "By group: dog 80 %, cat 10 %, plant 6.0 %."
    assert value["rows"][0]["label"] == "pug, pug-dog\nsmall dog\nanimal › dog · WordNet n02110958"
    assert build_bars([pug], 0, groups=groups[2:])["groups"] == "By group: plant 6.0 %."
    assert build_bars([pug], 0, groups=groups[3:])["groups"] == build_bars([pug], 0)["groups"] == ""
    assert build_bars([pug], 0)["rows"][0]["label"] == "pug, pug-dog"
    with use_language("ko"):
        assert build_bars([pug], 0, groups=groups)["groups"] == "그룹별: 개 80 %, 고양이 10 %, 식물 6.0 %."


def test_downsample_map_averages_cells():
    values = np.arange(16.0).reshape(4, 4)
    assert downsample_map(values, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert downsample_map(values, 4) is values


def test_parse_parameters_returns_the_changed_parameters_of_the_menus(service, name):
    model = service.catalog.get(name)
    menus = build_parameter_menus(model, "grad-cam")
    assert [row["name"] for row in menus["parameters"]] == ["layer", "relu", "score"]
    assert parse_parameter_menus(menus, model, "grad-cam") == {}
    menus["parameters"][0]["chosen"] = menus["parameters"][1]["chosen"] = 2
    menus["parameters"][2]["chosen"] = 1
    assert parse_parameter_menus(menus, model, "grad-cam") == {
        "layer": model.stages[1],
        "relu": False,
        "score": "probability",
    }
    assert build_parameter_menus(model, "grad-cam", parse_parameter_menus(menus, model, "grad-cam")) == menus
    assert parse_parameter_menus(menus, model, "saliency") == {}  # menus of another method, though it has a score too


@pytest.mark.parametrize(
    "forged", [None, 3, {"method": "grad-cam", "parameters": [{"name": "x"}, {"name": "layer", "chosen": 99}]}]
)
def test_parse_parameters_ignores_forged_menus(service, name, forged):
    value = {"method": "grad-cam", "parameters": forged} if isinstance(forged, list) else forged
    assert parse_parameter_menus(value, service.catalog.get(name), "grad-cam") == {}


def upload(tmp_path, data: bytes, name: str = "secret-folder-photo.jpg"):
    path = tmp_path / name
    path.write_bytes(data)
    return SimpleNamespace(path=str(path), url=None)


@pytest.fixture
def box() -> PhotoInput:
    return PhotoInput(type="filepath", format="png")


def jpeg(image: Image.Image, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **more)
    return file.getvalue()


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg></svg>", b"\xff\xd8\xff\xe0 cut", b"\0\0\0\x18ftypheic\0\0"])
def test_photo_input_returns_one_sentence_without_a_path_for_an_invalid_file(box, tmp_path, data):
    error = box.preprocess(upload(tmp_path, data))
    assert isinstance(error, gr.Error)
    sentence = error.message
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(tmp_path) not in sentence


def test_photo_input_applies_the_exif_orientation(box, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = box.preprocess(upload(tmp_path, jpeg(Image.new("RGB", (60, 30)), exif=exif)))
    assert photo.size == (30, 60)


def test_photo_input_decodes_equal_files_once(box, tmp_path):
    data = jpeg(Image.new("RGB", (60, 30)))
    assert box.preprocess(upload(tmp_path, data, "a.jpg")) is box.preprocess(upload(tmp_path, data, "b.jpg"))


def test_photo_inputs_share_one_cache(box, tmp_path):
    copy = type(box)(**box.constructor_args)  # as gradio does for each session
    assert copy.preprocess(upload(tmp_path, jpeg(Image.new("RGB", (60, 31))))) is box.preprocess(
        upload(tmp_path, jpeg(Image.new("RGB", (60, 31))))
    )


def test_photo_input_opens_a_data_url_and_rejects_an_invalid_one(box):
    text = base64.b64encode(jpeg(Image.new("RGB", (60, 30)))).decode()
    assert box.preprocess(SimpleNamespace(path=None, url="data:image/jpeg;base64," + text)).size == (60, 30)
    broken = box.preprocess(SimpleNamespace(path=None, url="data:image/jpeg;base64,%%%"))
    assert "did not arrive whole" in broken.message


@pytest.mark.parametrize("source", ["file", "data-url"])
def test_photo_input_rejects_files_and_data_urls_over_20_megabytes(box, tmp_path, source):
    file = io.BytesIO()
    Image.new("RGB", (60, 30)).save(file, "BMP")
    data = file.getvalue().ljust(21_000_000, b"\0")  # Pillow ignores bytes after the pixels of a BMP
    payload = upload(tmp_path, data)
    if source == "data-url":
        payload = SimpleNamespace(path=None, url="data:image/bmp;base64," + base64.b64encode(data).decode())
    error = box.preprocess(payload)
    assert isinstance(error, gr.Error)
    assert "The photo has 21 MB, expected at most 20 MB" in error.message
    assert box.preprocess(upload(tmp_path, data[:20_000_000])).size == (60, 30)


def test_pillow_raises_on_decompression_bombs_outside_the_library_too():
    file = io.BytesIO()
    Image.new("1", (9_500, 9_500)).save(file, "PNG")  # 90 megapixels: by default Pillow only warns
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)


def test_photo_input_has_the_block_name_of_gradios_image(box):
    assert (box.get_block_name(), box.get_block_class(), box.get_config()["name"]) == ("image",) * 3


def test_photo_input_passes_none_through(box):
    assert box.preprocess(None) is None
    assert box.postprocess(None) is None


def test_atomic_image_is_complete_while_it_is_written_again(box, tmp_path):
    box.GRADIO_CACHE = str(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    path = Path(box.postprocess(picture).path)
    content, comparisons, done = path.read_bytes(), set(), threading.Event()

    def read_repeatedly() -> None:
        while not done.is_set():
            comparisons.add(path.read_bytes() == content)

    reader = threading.Thread(target=read_repeatedly)
    reader.start()
    for _ in range(100):
        assert box.postprocess(picture).path == str(path)
    done.set()
    reader.join()
    assert comparisons == {True}
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))


def test_atomic_image_updates_the_date_of_an_existing_file_and_replaces_a_truncated_one(box, tmp_path):
    box.GRADIO_CACHE = str(tmp_path)
    picture = Image.new("RGB", (60, 30), "teal")
    path = Path(box.postprocess(picture).path)
    content, old = path.read_bytes(), path.stat()
    os.utime(path, (0, 0))
    box.postprocess(picture)
    assert (path.stat().st_ino, path.stat().st_mtime > 0) == (old.st_ino, True)
    path.write_bytes(content[:50])
    box.postprocess(picture)
    assert path.read_bytes() == content
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_to_gradio_error_escapes_html():
    assert (
        to_gradio_error(ImageError("the file <img src=x> is no photo")).message
        == "The file &lt;img src=x&gt; is no photo."
    )
