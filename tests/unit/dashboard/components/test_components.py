"""What travels to the browser is what the library computed."""

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
from dashboard.components.base import encode_photo_and_box, pack_bytes, pack_floats, to_gradio_error
from dashboard.components.linked_heatmaps import ColourScale, build_item, build_linked_heatmaps
from dashboard.components.parameters import build_parameter_menus, parse_parameters
from dashboard.components.patches import MAX_MAP_BYTES, fit_to_budget
from dashboard.components.photo import PhotoInput
from dashboard.components.thumbnails import downsample_map
from vizlib import ImageError, Prediction
from vizlib.core.geometry import Geometry


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_exact_values_arrive_bit_by_bit():
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    packed = pack_floats(values)
    assert np.array_equal(floats(packed["floats"]).reshape(packed["shape"]), values)


def test_rough_values_arrive_to_half_a_step_of_each_map():
    values = np.random.default_rng(0).normal(size=(2, 3, 7, 5)) * np.array([1, 1000]).reshape(2, 1, 1, 1)
    packed = pack_bytes(values)
    ends = floats(packed["ends"]).reshape(2, 3, 2)
    steps = np.frombuffer(base64.b64decode(packed["bytes"]), np.uint8).reshape(values.shape)
    step = (ends[..., 1] - ends[..., 0])[..., None, None] / 255
    assert (np.abs(ends[..., 0][..., None, None] + steps * step - values) <= step * 0.501).all()
    assert floats(pack_bytes(np.full((1, 2, 2), 3.0))["ends"]).tolist() == [3, 4]  # a flat map divides by nothing


def test_a_photo_to_draw_upon_is_as_large_as_the_page_shows_and_knows_where_the_model_looked():
    geometry = Geometry.from_timm_transform((300, 600), (224, 224), crop_pct=1.0, crop_mode="center")
    base = encode_photo_and_box(Image.new("RGB", (600, 300), "teal"), geometry, side=840)
    assert (base["width"], base["height"]) == (840, 420)
    assert base["box"] == pytest.approx([0, 0.25, 1, 0.75], abs=0.005)
    assert base["photo"].startswith("data:image/jpeg;base64,")


def test_all_heads_travel_while_they_fit_into_the_budget_else_the_means_and_one_layers_heads():
    maps = np.random.default_rng(0).random((3, 4, 5, 2, 6))
    assert fit_to_budget(maps, budget=maps.size) == {"maps": pack_bytes(maps)}
    for asked, sent in ((None, 2), (1, 1), (99, 2), (-1, 2)):
        less = fit_to_budget(maps, asked, budget=maps.size - 1)
        assert less["of"] == sent
        assert less["heads"] == pack_bytes(maps[sent])
        means = np.array([[[sum(head[token] for head in layer) / 4 for token in range(5)]] for layer in maps])
        assert less["maps"] == pack_bytes(means)
    tiny, base = 12 * 3 * 197 * 196, 12 * 12 * 197 * 196
    assert tiny < MAX_MAP_BYTES < base


def test_linked_maps_keep_their_values_and_say_which_scale_they_share():
    heats = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    one = build_item("church", heats, (0, 0.1, 1, 0.9), 0, alt="a map", factors=(1, 0.5))
    value = build_linked_heatmaps(
        [("a model", [one, None])], [ColourScale("value", [(0, 1), (0, 2)])], Image.new("RGB", (90, 60)), label="x"
    )
    sent = value["rows"][0]["items"][0]["maps"]
    assert np.array_equal(floats(sent["floats"]).reshape(sent["shape"]), heats)
    assert (value["width"], value["height"]) == (420, 280)
    assert value["scales"][0]["limits"] == [[0, 1], [0, 2]]


def test_the_bars_add_the_target_when_it_is_not_among_the_first():
    found = [Prediction(i, f"label {i}, other name", 0.5 / (i + 1), 1.0) for i in range(9)]
    assert [row["index"] for row in build_bars(found, 0)["rows"]] == [0, 1, 2, 3, 4]
    assert [row["index"] for row in build_bars(found, 7)["rows"]] == [0, 1, 2, 3, 4, 7]
    assert build_bars(found, 7)["rows"][0]["name"] == "label 0"


def test_a_model_of_few_classes_says_which_they_are():
    found = [Prediction(i, f"label {i}", 0.5, 1.0) for i in (2, 0, 1)]
    assert build_bars(found, 0)["note"].endswith(
        "these 3 classes and always predicts one of them: label 0, label 1, label 2."
    )
    assert build_bars(found * 400, 0)["note"] == ""


def test_a_doubt_stands_with_the_bars_and_is_empty_where_there_is_none():
    found = [Prediction(0, "church", 0.9, 1.0)]
    assert build_bars(found, 0, ood_note="This photo is unlike those.")["oodNote"] == "This photo is unlike those."
    assert build_bars(found, 0)["oodNote"] == ""


def test_a_small_map_averages_what_falls_together():
    values = np.arange(16.0).reshape(4, 4)
    assert downsample_map(values, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert downsample_map(values, 4) is values


def test_the_knobs_are_the_registrys_and_only_those_turned_away_from_their_default_count(service, name):
    model = service.catalog.get(name)
    menus = build_parameter_menus(model, "grad-cam")
    assert [row["name"] for row in menus["parameters"]] == ["layer", "relu", "score"]
    assert parse_parameters(menus, model, "grad-cam") == {}
    menus["parameters"][0]["chosen"] = menus["parameters"][1]["chosen"] = 2
    menus["parameters"][2]["chosen"] = 1
    assert parse_parameters(menus, model, "grad-cam") == {
        "layer": model.stages[1],
        "relu": False,
        "score": "probability",
    }
    assert build_parameter_menus(model, "grad-cam", parse_parameters(menus, model, "grad-cam")) == menus
    assert parse_parameters(menus, model, "saliency") == {}  # another method's knobs, though it has a score too


@pytest.mark.parametrize(
    "forged", [None, 3, {"method": "grad-cam", "parameters": [{"name": "x"}, {"name": "layer", "chosen": 99}]}]
)
def test_forged_knobs_are_ignored(service, name, forged):
    value = {"method": "grad-cam", "parameters": forged} if isinstance(forged, list) else forged
    assert parse_parameters(value, service.catalog.get(name), "grad-cam") == {}


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
def test_what_is_no_photo_is_refused_in_one_sentence_without_a_path(box, tmp_path, data):
    refused = box.preprocess(upload(tmp_path, data))
    assert isinstance(refused, gr.Error)
    sentence = refused.message
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(tmp_path) not in sentence


def test_a_phone_photo_is_opened_upright(box, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = box.preprocess(upload(tmp_path, jpeg(Image.new("RGB", (60, 30)), exif=exif)))
    assert photo.size == (30, 60)


def test_the_same_file_is_opened_once(box, tmp_path):
    data = jpeg(Image.new("RGB", (60, 30)))
    assert box.preprocess(upload(tmp_path, data, "a.jpg")) is box.preprocess(upload(tmp_path, data, "b.jpg"))


def test_a_box_made_anew_for_another_visitor_has_the_same_photos(box, tmp_path):
    another = type(box)(**box.constructor_args)  # as gradio does once an event may change the box
    assert another.preprocess(upload(tmp_path, jpeg(Image.new("RGB", (60, 31))))) is box.preprocess(
        upload(tmp_path, jpeg(Image.new("RGB", (60, 31))))
    )


def test_a_picture_inside_an_address_is_opened_and_a_broken_one_refused(box):
    text = base64.b64encode(jpeg(Image.new("RGB", (60, 30)))).decode()
    assert box.preprocess(SimpleNamespace(path=None, url="data:image/jpeg;base64," + text)).size == (60, 30)
    broken = box.preprocess(SimpleNamespace(path=None, url="data:image/jpeg;base64,%%%"))
    assert "did not arrive whole" in broken.message


@pytest.mark.parametrize("way", ["file", "address"])
def test_a_photo_of_more_than_20_megabytes_is_refused_however_it_came(box, tmp_path, way):
    file = io.BytesIO()
    Image.new("RGB", (60, 30)).save(file, "BMP")
    data = file.getvalue().ljust(21_000_000, b"\0")  # a BMP is read no further than its pixels
    given = upload(tmp_path, data)
    if way == "address":
        given = SimpleNamespace(path=None, url="data:image/bmp;base64," + base64.b64encode(data).decode())
    refused = box.preprocess(given)
    assert isinstance(refused, gr.Error)
    assert "The photo has 21 MB, expected at most 20 MB" in refused.message
    assert box.preprocess(upload(tmp_path, data[:20_000_000])).size == (60, 30)


def test_pillow_itself_refuses_a_bomb_wherever_gradio_may_open_one():
    file = io.BytesIO()
    Image.new("1", (9_500, 9_500)).save(file, "PNG")  # 90 megapixels: Pillow as it comes would only warn
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)


def test_to_gradio_it_is_an_image(box):
    assert (box.get_block_name(), box.get_block_class(), box.get_config()["name"]) == ("image",) * 3


def test_nothing_stays_nothing(box):
    assert box.preprocess(None) is None
    assert box.postprocess(None) is None


def test_a_picture_shown_to_another_visitor_is_whole_for_who_reads_it_meanwhile(box, tmp_path):
    box.GRADIO_CACHE = str(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    path = Path(box.postprocess(picture).path)
    whole, read, done = path.read_bytes(), set(), threading.Event()

    def reads() -> None:
        while not done.is_set():
            read.add(path.read_bytes() == whole)

    reader = threading.Thread(target=reads)
    reader.start()
    for _ in range(100):
        assert box.postprocess(picture).path == str(path)
    done.set()
    reader.join()
    assert read == {True}
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))


def test_a_picture_that_is_there_is_as_if_new_and_one_cut_short_is_mended(box, tmp_path):
    box.GRADIO_CACHE = str(tmp_path)
    picture = Image.new("RGB", (60, 30), "teal")
    path = Path(box.postprocess(picture).path)
    whole, old = path.read_bytes(), path.stat()
    os.utime(path, (0, 0))
    box.postprocess(picture)
    assert (path.stat().st_ino, path.stat().st_mtime > 0) == (old.st_ino, True)
    path.write_bytes(whole[:50])
    box.postprocess(picture)
    assert path.read_bytes() == whole
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_sentence_holds_no_html():
    assert (
        to_gradio_error(ImageError("the file <img src=x> is no photo")).message
        == "The file &lt;img src=x&gt; is no photo."
    )
