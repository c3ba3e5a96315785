"""A report is one page that needs nothing else: what it holds is the attribution's own, and no name becomes HTML."""

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
from html_pages import Page, picture
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
    return vizlib.load(RESNET)


@pytest.fixture(scope="module")
def answer(model, tower):
    return vizlib.explain(model, tower, "grad-cam", target="parachute", against="church")


def page_of(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def facts(path) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", path.read_text(encoding="utf-8")))


def test_report_holds_the_exact_raw_values(answer, model, tmp_path):
    (found,) = page_of(vizlib.report(answer, tmp_path / "why.html", model=model)).maps()
    assert found["heat"].dtype == np.float32
    assert np.array_equal(found["heat"], answer.heat.numpy())
    assert json.loads(str(found["about"])) == json.loads(json.dumps(answer.to_dict()))


def test_code_in_the_report_reads_the_raw_values(answer, tmp_path, monkeypatch, capsys):
    name = 'it\'s "why".html'
    path = vizlib.report(answer, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    code = next(
        one for one in re.findall(r"<pre><code>(.*?)</code></pre>", path.read_text(), re.DOTALL) if "np.load" in one
    )
    names = {}
    exec(unescape(code), names)
    assert np.array_equal(names["maps"][0]["heat"], answer.heat.numpy())
    assert '"method": "grad-cam"' in capsys.readouterr().out


def test_report_shows_photo_overlay_and_color_bar(answer, model, tower, tmp_path):
    overlay, bar, photo = (
        picture(one["src"]) for one in page_of(vizlib.report(answer, tmp_path / "why.html")).every("img")
    )
    assert np.array_equal(photo, np.asarray(tower))
    assert np.array_equal(overlay, np.asarray(answer.overlay()))
    assert np.array_equal(bar, np.asarray(draw_color_bar(signed=True)))


def test_report_reduces_large_photos(model, tower, tmp_path):
    large = tower.resize((3200, 4800))
    answer = vizlib.explain(model, large, "saliency")
    page = page_of(vizlib.report(answer, tmp_path / "why.html"))
    overlay, _, photo = (picture(one["src"]) for one in page.every("img"))
    assert overlay.shape == photo.shape == (1600, 1067, 3)
    assert "The photo, compressed" in page.text()
    assert "3200 × 4800 pixels" in page.text()
    assert (tmp_path / "why.html").stat().st_size < 4_000_000
    smaller, heat = answer.resize_with_heat(1600)
    assert np.abs(photo.astype(float) - np.asarray(smaller)).mean() < 3
    assert np.abs(overlay.astype(float) - np.asarray(overlay_heat(smaller, heat))).mean() < 3
    assert np.array_equal(page.maps()[0]["heat"], answer.heat.numpy())


def test_report_lists_method_class_hashes_versions_and_notes(answer, model, tower, tmp_path):
    path = vizlib.report(answer, tmp_path / "why.html", model=model)
    said, page, row = facts(path), page_of(path), METHODS["grad-cam"]
    assert said["Method"] == "grad-cam"
    assert said["Paper"] == row.paper
    assert said["Class"] == "parachute (number 9)"
    assert said["Against"] == "church (number 4)"
    assert float(said["Probability"]) == pytest.approx(answer.probability, abs=1e-6)
    assert said["Parameters"] == "layer = automatic, relu = False, score = logit"
    assert said["Layers"] == "layer4"
    assert said["SHA-256 of the RGB pixels"] == hashlib.sha256(np.asarray(tower).tobytes()).hexdigest()
    assert said["SHA-256 of the weights"] == hash_weights(model.module)
    for name, version in (("vizlib", vizlib.__version__), ("torch", torch.__version__), ("NumPy", np.__version__)):
        assert f"{name} {version}" in said["Versions"]
    for sentence in (row.shows, row.does_not_show, *answer.notes):
        assert sentence in page.text()
    assert answer.notes
    assert page.text().count("Why parachute and not church?") == 2  # its title and its heading
    low, high = compute_limits(answer.project_to_photo(), signed=True)
    assert f"{low:.3g} church 0 {high:.3g} parachute".replace("-", "−") in page.text()
    for one in model.predict(tower):
        assert one.label in page.text()


def test_report_without_model_has_class_numbers(answer, tmp_path):
    path = vizlib.report(answer, tmp_path / "why.html")
    assert "SHA-256 of the weights" not in facts(path)
    assert facts(path)["Against"] == "class 4 (number 4)"
    assert "target=9" in path.read_text()


def test_report_is_self_contained_and_has_no_script(answer, model, tmp_path):
    path = vizlib.report(answer, tmp_path / "why.html", model=model)
    page = page_of(path)
    assert page.addresses()
    assert all(one.startswith("data:") for one in page.addresses())
    assert not {tag for tag, _ in page.found} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\(|@import|https?:|//", re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text()))


def test_hostile_names_are_escaped_in_the_report(model, answer, tmp_path):
    labels = [f"{HOSTILE} {i}" for i in range(10)]
    hostile = vizlib.wrap(model.module, preprocessing=model.preprocessing, labels=labels, name=HOSTILE)
    spoilt = replace(
        answer, label=HOSTILE, model=HOSTILE, notes=(HOSTILE,), parameters={**answer.parameters, "layer": HOSTILE}
    )
    snippet = CodeSnippet.from_attribution(spoilt, hostile, photo=f"{HOSTILE}.jpg")
    page = page_of(vizlib.report([spoilt, spoilt], tmp_path / "why.html", model=None, snippets=[snippet, snippet]))
    plain = page_of(vizlib.report([answer, answer], tmp_path / "plain.html"))
    assert {tag for tag, _ in page.found} == {tag for tag, _ in plain.found} | {"ul", "li"}
    assert page.text().count("<script>alert(1)</script>") >= 6
    assert not [one for one in page.found if one[0] == "script" or any(key.startswith("on") for key in one[1])]
    assert not [one for one in page.every("img") if not one["src"].startswith("data:image/")]
    answered = vizlib.explain(hostile, answer.photo, "saliency", target=0)
    page = page_of(vizlib.report(answered, tmp_path / "hostile.html", model=hostile))
    assert not [one for one in page.found if one[0] == "script" or any(key.startswith("on") for key in one[1])]


def test_report_of_many_maps_shows_each_photo_once(model, tower, cheetah, tmp_path):
    every = vizlib.explain_all(model, tower)
    page = page_of(vizlib.report(every, tmp_path / "all.html", model=model))
    assert len(page.every("img")) == 1 + 2 * len(every)
    for found, answer in zip(page.maps(), every.values(), strict=True):
        assert np.array_equal(found["heat"], answer.heat.numpy())
    assert f"Why {model.predict(tower)[0].label}?" in page.text()
    another = (every["saliency"].target + 1) % len(model.labels)
    two = [every["saliency"], vizlib.explain(model, cheetah, "saliency", target=another)]
    page = page_of(vizlib.report(iter(two), tmp_path / "two.html"))
    assert [picture(one["src"]).shape for one in page.every("img")][::3] == [np.asarray(one.photo).shape for one in two]
    assert "2 maps" in page.text()


def test_report_is_deterministic_except_for_the_date(answer, model, tmp_path, monkeypatch):
    first = vizlib.report(answer, tmp_path / "why.html", model=model).read_bytes()
    again = vizlib.explain(model, answer.photo, "grad-cam", target="parachute", against="church")
    assert vizlib.report(again, tmp_path / "why.html", model=model).read_bytes() == first
    today = re.search(r"\d+ \w+ 20\d\d", facts(tmp_path / "why.html")["Date"])[0]
    monkeypatch.setattr(import_module("vizlib.reporting.html_report"), "_format_date", lambda date: "1 April 2000")
    assert vizlib.report(again, tmp_path / "why.html", model=model).read_text() == first.decode().replace(
        today, "1 April 2000"
    )


def test_unwritable_report_leaves_no_file(answer, tmp_path):
    with pytest.raises(vizlib.VizlibError, match=r"^why\.html cannot be written: "):
        vizlib.report(answer, tmp_path / "nowhere" / "why.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(vizlib.VizlibError, match=r"^folder cannot be written: "):
        vizlib.report(answer, tmp_path / "folder")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


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

    one = network()
    assert hash_weights(one) == hash_weights(network()) == slowly(one)
    assert hash_weights(one.eval().requires_grad_(False)) == slowly(one)
    assert hash_weights(network().to(memory_format=torch.channels_last)) == slowly(one)
    seen = {hash_weights(one)}
    for name in one.state_dict():
        other = network()
        with torch.no_grad():
            other.state_dict()[name].view(-1)[-1].add_(1)
        seen.add(hash_weights(other))
    seen |= {hash_weights(network().half()), hash_weights(network().bfloat16()), hash_weights(nn.Sequential(one))}
    assert len(seen) == 1 + len(one.state_dict()) + 3


def test_explain_command_writes_a_report_without_folder_names(tmp_path, tower, cheetah, monkeypatch):
    tower.save(tmp_path / "one.png")
    cheetah.save(tmp_path / "two.png")
    out = tmp_path / "all.html"
    words = ["explain", str(tmp_path / "one.png"), str(tmp_path / "two.png"), "-o", str(tmp_path), "--report", str(out)]
    result = CliRunner().invoke(app, [*words, "-x", "saliency"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"{out}: all results as one page"
    page = page_of(out)
    assert len(page.maps()) == 2
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
    assert 'vizlib.load("my.safetensors", architecture="test_resnet")' in page_of(out).text()
    assert "secret place" not in out.read_text()


def test_date_has_no_leading_zero_and_needs_no_platform_specific_format():
    from vizlib.reporting import html_report

    assert html_report._format_date(datetime(2026, 4, 1)) == "1 April 2026"
    assert "%-" not in Path(html_report.__file__).read_text(encoding="utf-8").replace("`%-d`", "")
