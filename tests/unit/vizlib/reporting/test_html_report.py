"""HTML reports: complete, self-contained, and safe for any name."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from datetime import datetime
from html import unescape
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from bundled_models import load_bundled
from html_pages import decode_image, read_page
from torch import nn
from typer.testing import CliRunner

import vizlib
from vizlib.attribution.methods.registry import METHODS
from vizlib.cli import app
from vizlib.models.loading.checkpoint_files import hash_weights
from vizlib.render.color_scale import compute_limits, draw_color_bar
from vizlib.render.overlay import overlay_heat
from vizlib.reporting.code_snippets import CodeSnippet

RESNET = "resnet18-imagenette"
HOSTILE = "</style><script>alert(1)</script>\"'&<img src=//evil.example onerror=alert(1)>"


@pytest.fixture(scope="module")
def model():
    return load_bundled(RESNET)


@pytest.fixture(scope="module")
def attribution(model, tower):
    return vizlib.explain(model, tower, "grad-cam", target="parachute", against="church")


def facts(path) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", path.read_text(encoding="utf-8")))


def test_report_holds_the_exact_raw_values(attribution, model, tmp_path):
    (result,) = read_page(vizlib.report(attribution, tmp_path / "why.html", model=model)).load_maps()
    assert result["heat"].dtype == np.float32
    assert np.array_equal(result["heat"], attribution.heat.numpy())
    assert json.loads(str(result["about"])) == json.loads(json.dumps(attribution.to_dict()))


def test_code_in_the_report_reads_the_raw_values(attribution, tmp_path, monkeypatch, capsys):
    name = 'it\'s "why".html'
    path = vizlib.report(attribution, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    code = next(
        row for row in re.findall(r"<pre><code>(.*?)</code></pre>", path.read_text(), re.DOTALL) if "np.load" in row
    )
    names = {}
    exec(unescape(code), names)
    assert np.array_equal(names["maps"][0]["heat"], attribution.heat.numpy())
    assert '"method": "grad-cam"' in capsys.readouterr().out


def test_report_shows_photo_overlay_and_color_bar(attribution, model, tower, tmp_path):
    overlay, bar, photo = (
        decode_image(row["src"]) for row in read_page(vizlib.report(attribution, tmp_path / "why.html")).find_all("img")
    )
    assert np.array_equal(photo, np.asarray(tower))
    assert np.array_equal(overlay, np.asarray(attribution.overlay()))
    assert np.array_equal(bar, np.asarray(draw_color_bar(signed=True)))


def test_report_reduces_large_photos(model, tower, tmp_path):
    large = tower.resize((3200, 4800))
    attribution = vizlib.explain(model, large, "saliency")
    page = read_page(vizlib.report(attribution, tmp_path / "why.html"))
    overlay, _, photo = (decode_image(row["src"]) for row in page.find_all("img"))
    assert overlay.shape == photo.shape == (1600, 1067, 3)
    assert "The photo, compressed" in page.text()
    assert "3200 × 4800 pixels" in page.text()
    assert (tmp_path / "why.html").stat().st_size < 4_000_000
    smaller, heat = attribution.resize_with_heat(1600)
    assert np.abs(photo.astype(float) - np.asarray(smaller)).mean() < 3
    assert np.abs(overlay.astype(float) - np.asarray(overlay_heat(smaller, heat))).mean() < 3
    assert np.array_equal(page.load_maps()[0]["heat"], attribution.heat.numpy())


def test_report_lists_method_class_hashes_versions_and_notes(attribution, model, tower, tmp_path):
    path = vizlib.report(attribution, tmp_path / "why.html", model=model)
    text, page, row = facts(path), read_page(path), METHODS["grad-cam"]
    assert text["Method"] == "grad-cam"
    assert text["Paper"] == row.paper
    assert text["Class"] == "parachute (number 9)"
    assert text["Against"] == "church (number 4)"
    assert float(text["Probability"]) == pytest.approx(attribution.probability, abs=1e-6)
    assert text["Parameters"] == "layer = automatic, relu = False, score = logit"
    assert text["Layers"] == "layer4"
    assert text["SHA-256 of the RGB pixels"] == hashlib.sha256(np.asarray(tower).tobytes()).hexdigest()
    assert text["SHA-256 of the weights"] == hash_weights(model.module)
    for name, version in (("vizlib", vizlib.__version__), ("torch", torch.__version__), ("NumPy", np.__version__)):
        assert f"{name} {version}" in text["Versions"]
    for sentence in (row.shows, row.does_not_show, *attribution.notes):
        assert sentence in page.text()
    assert attribution.notes
    assert page.text().count("Why parachute and not church?") == 2  # its title and its heading
    low, high = compute_limits(attribution.project_to_photo(), signed=True)
    assert f"{low:.3g} church 0 {high:.3g} parachute".replace("-", "−") in page.text()
    for item in model.predict(tower):
        assert item.label in page.text()


def test_report_without_model_names_classes_but_has_no_hash_of_weights(attribution, tmp_path):
    path = vizlib.report(attribution, tmp_path / "why.html")
    assert "SHA-256 of the weights" not in facts(path)
    assert facts(path)["Against"] == "church (number 4)"
    assert "target=9" in path.read_text()


def test_report_is_self_contained_and_has_no_script(attribution, model, tmp_path):
    path = vizlib.report(attribution, tmp_path / "why.html", model=model)
    page = read_page(path)
    assert page.urls()
    assert all(row.startswith("data:") for row in page.urls())
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\(|@import|https?:|//", re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text()))


def test_hostile_names_are_escaped_in_the_report(model, attribution, tmp_path):
    labels = [f"{HOSTILE} {i}" for i in range(10)]
    hostile = vizlib.wrap(model.module, preprocessing=model.preprocessing, labels=labels, name=HOSTILE)
    spoilt = replace(
        attribution,
        label=HOSTILE,
        model=HOSTILE,
        notes=(HOSTILE,),
        parameters={**attribution.parameters, "layer": HOSTILE},
    )
    snippet = CodeSnippet.from_attribution(spoilt, hostile, photo=f"{HOSTILE}.jpg")
    page = read_page(vizlib.report([spoilt, spoilt], tmp_path / "why.html", model=None, snippets=[snippet, snippet]))
    plain = read_page(vizlib.report([attribution, attribution], tmp_path / "plain.html"))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags} | {"ul", "li"}
    assert page.text().count("<script>alert(1)</script>") >= 6
    assert not [row for row in page.tags if row[0] == "script" or any(key.startswith("on") for key in row[1])]
    assert not [row for row in page.find_all("img") if not row["src"].startswith("data:image/")]
    answered = vizlib.explain(hostile, attribution.photo, "saliency", target=0)
    page = read_page(vizlib.report(answered, tmp_path / "hostile.html", model=hostile))
    assert not [row for row in page.tags if row[0] == "script" or any(key.startswith("on") for key in row[1])]


@pytest.mark.slow
def test_report_of_many_maps_shows_each_photo_once(model, tower, cheetah, tmp_path):
    attributions = vizlib.explain_all(model, tower)
    page = read_page(vizlib.report(attributions, tmp_path / "all.html", model=model))
    assert len(page.find_all("img")) == 1 + 2 * len(attributions)
    for result, attribution in zip(page.load_maps(), attributions.values(), strict=True):
        assert np.array_equal(result["heat"], attribution.heat.numpy())
    assert f"Why {model.predict(tower)[0].label}?" in page.text()
    other_target = (attributions["saliency"].target + 1) % len(model.labels)
    two = [attributions["saliency"], vizlib.explain(model, cheetah, "saliency", target=other_target)]
    page = read_page(vizlib.report(iter(two), tmp_path / "two.html"))
    assert [decode_image(row["src"]).shape for row in page.find_all("img")][::3] == [
        np.asarray(row.photo).shape for row in two
    ]
    assert "2 maps" in page.text()


def test_report_is_deterministic_except_for_the_date(attribution, model, tmp_path, monkeypatch):
    first = vizlib.report(attribution, tmp_path / "why.html", model=model).read_bytes()
    again = vizlib.explain(model, attribution.photo, "grad-cam", target="parachute", against="church")
    assert vizlib.report(again, tmp_path / "why.html", model=model).read_bytes() == first
    date = re.search(r"\d+ \w+ 20\d\d", facts(tmp_path / "why.html")["Date"])
    assert date is not None
    today = date[0]
    monkeypatch.setattr(import_module("vizlib.reporting.html_report"), "_format_date", lambda date: "1 April 2000")
    assert vizlib.report(again, tmp_path / "why.html", model=model).read_text() == first.decode().replace(
        today, "1 April 2000"
    )


def test_unwritable_report_leaves_no_file(attribution, tmp_path):
    with pytest.raises(vizlib.VizlibError, match=r"^why\.html cannot be written: "):
        vizlib.report(attribution, tmp_path / "nowhere" / "why.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(vizlib.VizlibError, match=r"^folder cannot be written: "):
        vizlib.report(attribution, tmp_path / "folder")
    assert [row.name for row in tmp_path.iterdir()] == ["folder"]


def test_hash_weights_changes_with_every_weight_only():
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))

    def slowly(module: nn.Module) -> str:
        digest = hashlib.sha256()
        for name in sorted(module.state_dict()):
            value = module.state_dict()[name]
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode() + value.numpy().tobytes())
        return digest.hexdigest()

    row = network()
    assert hash_weights(row) == hash_weights(network()) == slowly(row)
    assert hash_weights(row.eval().requires_grad_(False)) == slowly(row)
    assert hash_weights(network().to(memory_format=torch.channels_last)) == slowly(row)
    hashes = {hash_weights(row)}
    for name in row.state_dict():
        other = network()
        with torch.no_grad():
            other.state_dict()[name].view(-1)[-1].add_(1)
        hashes.add(hash_weights(other))
    hashes |= {hash_weights(network().half()), hash_weights(network().bfloat16()), hash_weights(nn.Sequential(row))}
    assert len(hashes) == 1 + len(row.state_dict()) + 3


def test_explain_command_writes_a_report_without_folder_names(tmp_path, tower, cheetah, monkeypatch):
    tower.save(tmp_path / "one.png")
    cheetah.save(tmp_path / "two.png")
    out = tmp_path / "all.html"
    words = ["explain", str(tmp_path / "one.png"), str(tmp_path / "two.png"), "-o", str(tmp_path), "--report", str(out)]
    result = CliRunner().invoke(app, [*words, "-x", "saliency"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"{out}: all results as one page"
    page = read_page(out)
    assert len(page.load_maps()) == 2
    assert 'vizlib.open_image("two.png")' in page.text()
    assert str(tmp_path) not in out.read_text()


def test_explain_command_names_the_weight_file_without_its_folder(tmp_path, tower):
    folder = tmp_path / "secret place"
    folder.mkdir()
    torch.manual_seed(0)
    safetensors.torch.save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), folder / "my.safetensors")
    tower.save(folder / "one.png")
    out = tmp_path / "why.html"
    words = ["explain", str(folder / "one.png"), "-m", str(folder / "my.safetensors"), "--architecture", "test_resnet"]
    result = CliRunner().invoke(app, [*words, "-x", "saliency", "-o", str(tmp_path), "--report", str(out)])
    assert result.exit_code == 0, result.output
    assert 'vizlib.load("my.safetensors", architecture="test_resnet")' in read_page(out).text()
    assert "secret place" not in out.read_text()


def test_date_has_no_leading_zero_and_needs_no_platform_specific_format():
    from vizlib.reporting import html_report

    assert html_report._format_date(datetime(2026, 4, 1)) == "1 April 2026"
    assert "%-" not in Path(html_report.__file__).read_text(encoding="utf-8").replace("`%-d`", "")
