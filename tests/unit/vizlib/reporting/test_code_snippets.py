"""Code snippets are executed: each reproduces the exact values of the map, whatever characters its names contain."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from bundled_models import load_bundled
from clip_networks import make_clip
from PIL import Image
from typer.testing import CliRunner

import vizlib
from dashboard.services.example_photos import EXAMPLES
from vizlib.attribution.target import RUNNER_UP
from vizlib.cli import app
from vizlib.cli.values import parse_parameters
from vizlib.reporting.code_snippets import CodeSnippet, find_class_name
from vizlib.reporting.html_report import READ_CODE

RESNET, VIT = "resnet18-imagenette", "vit_tiny-imagenette"
HOSTILE = 'it\'s "$(touch hacked)" `touch hacked`; touch hacked #\\ \t!'
CASES = [
    (RESNET, "grad-cam", {"layer": "layer3", "relu": False}, "parachute"),
    (RESNET, "saliency", {"channels": "norm"}, RUNNER_UP),
    (VIT, "raw-attention", {"layer": "blocks.4.attn", "head": 2, "query": (6, 8)}, None),
]
SLOW_CASES = [
    (RESNET, "grad-cam", {}, None),
    (RESNET, "occlusion", {"window": 112, "stride": 112, "baseline": "blur"}, None),
    (RESNET, "rise", {"masks": 16, "share": 0.3}, None),
    (VIT, "integrated-gradients", {"steps": 2}, "golf ball"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch, tower):
    monkeypatch.chdir(tmp_path)
    tower.save("photo.png")
    return tmp_path


def run_python(code: str) -> torch.Tensor:
    names = {}
    exec(compile(code, "snippet", "exec"), names)
    with np.load("why.npz") as result:
        assert np.array_equal(result["heat"], names["why"].heat.numpy())
    return names["why"].heat


def words_of(line: str) -> list[str]:
    """Return the arguments that a real shell passes for a command line, read by a replacement of `vizlib`."""
    with tempfile.TemporaryDirectory() as options:
        stand_in = Path(options) / "vizlib"
        stand_in.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
        stand_in.chmod(0o755)
        path = f"{options}{os.pathsep}{os.environ['PATH']}"
        output = subprocess.run(["sh", "-c", line], check=True, capture_output=True, env={**os.environ, "PATH": path})
    return json.loads(output.stdout)


def run_shell(line: str) -> None:
    """Split a line with a real shell and run it in this process, as importing torch again would take seconds."""
    result = CliRunner().invoke(app, words_of(line))
    assert result.exit_code == 0, result.output


def values_in(page: str) -> list[np.ndarray]:
    """Return the raw values of a report, with the code that it contains."""
    names = {}
    exec(READ_CODE.format(file=repr(page)), names)
    return [row["heat"] for row in names["maps"]]


@pytest.mark.parametrize(
    ("name", "method", "parameters", "against"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES)],
)
def test_python_and_shell_snippets_reproduce_the_map(name, method, parameters, against, folder, tower):
    model = load_bundled(name)
    attribution = vizlib.explain(model, tower, method, target=7, against=against, **parameters)
    snippet = CodeSnippet.from_attribution(attribution, model, photo="photo.png")
    assert torch.equal(run_python(snippet.to_python()), attribution.heat)
    run_shell(snippet.to_shell())
    (result,) = values_in("why.html")
    assert np.array_equal(result, attribution.heat.numpy())
    assert Path(f"photo.{method}.png").is_file()


def test_snippet_has_only_changed_parameters_and_class_names(tower):
    model = load_bundled(RESNET)
    plain = CodeSnippet.from_attribution(vizlib.explain(model, tower, "grad-cam", target=4), model)
    assert (plain.target, plain.against, plain.parameters) == ("church", None, {})
    versus = CodeSnippet.from_attribution(vizlib.explain(model, tower, "grad-cam", target=4, against=9), model)
    assert (versus.against, versus.parameters) == ("parachute", {})
    turned = CodeSnippet.from_attribution(
        vizlib.explain(model, tower, "grad-cam", target=4, against=9, relu=True, layer="layer2")
    )
    assert (turned.target, turned.against) == (4, 9)  # no model was given, so no names
    assert turned.parameters == {"layer": "layer2", "relu": True}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["tench, Tinca tinca", "crane", "crane"], ["tench", 1, 2]),
        (["a, b", "b, a"], ["a, b", "b, a"]),
        (["two\nlines", RUNNER_UP, "", "3"], [0, 1, 2, "3"]),
        (["it's", '"$(x)"', "-x"], ["it's", '"$(x)"', "-x"]),
    ],
)
def test_find_class_name_returns_a_resolvable_name_or_the_number(labels, names):
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, len(labels)))
    model = vizlib.wrap(module, preprocessing={"input_size": (3, 32, 32)}, labels=labels)
    assert [find_class_name(i, model) for i in range(len(labels))] == names


@pytest.fixture
def hostile(folder, tower):
    """A network and a photo whose names contain quotes, spaces and shell commands."""
    torch.manual_seed(0)
    name = f"{HOSTILE}\nnet"
    weights = timm.create_model("test_resnet", num_classes=3).state_dict()
    safetensors.torch.save_file(weights, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(
        '{"architecture": "test_resnet", "labels": ["it\'s", "\\"$(touch hacked)", "-x"]}'
    )
    tower.save(folder / f"-{HOSTILE}\n.png")
    return CodeSnippet(name, "saliency", "-x", '"$(touch hacked)', {}, f"-{HOSTILE}\n.png", checkpoints=".")


def test_hostile_names_are_quoted_in_python(hostile, folder, tower):
    before = set(os.listdir())
    heat = run_python(hostile.to_python())
    model = vizlib.load(hostile.model, checkpoints=folder)
    assert torch.equal(heat, vizlib.explain(model, tower, "saliency", target=2, against=1).heat)
    assert set(os.listdir()) - before == {"why.png", "why.npz"}


def test_hostile_names_are_quoted_in_the_shell(hostile, folder, tower):
    before = set(os.listdir())
    run_shell(hostile.to_shell())
    assert set(os.listdir()) - before == {"why.html", f"-{HOSTILE}\n.saliency.png"}
    model = vizlib.load(hostile.model, checkpoints=folder)
    expected = vizlib.explain(model, tower, "saliency", target=2, against=1).heat
    assert np.array_equal(values_in("why.html")[0], expected.numpy())


def test_shell_parameters_keep_their_types():
    parameters = {
        "layer": "0",
        "other": "layer3",
        "head": 2,
        "query": (6, 8),
        "share": 0.1,
        "relu": False,
        "empty": None,
    }
    words = words_of(CodeSnippet("m", "grad-cam", 0, None, parameters).to_shell())
    assert parse_parameters([words[i + 1] for i, word in enumerate(words) if word == "--param"]) == parameters


def test_client_snippet_is_python_with_quoted_texts():
    snippet = CodeSnippet(HOSTILE, "raw-attention", "it's", "\n", {"query": (6, 8)}, f"{HOSTILE}.png")
    (call,) = [
        node
        for node in ast.walk(ast.parse(snippet.to_client("http://127.0.0.1:7860/")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "client.predict"
    ]
    given = {word.arg: word.value for word in call.keywords}
    photo = given.pop("photo")
    assert isinstance(photo, ast.Call)
    assert ast.literal_eval(photo.args[0]) == f"{HOSTILE}.png"
    assert {name: ast.literal_eval(value) for name, value in given.items()} == {
        "model": HOSTILE,
        "method": "raw-attention",
        "target": "it's",
        "parameters": {"query": [6, 8], "against": "\n"},
        "api_name": "/explain",
    }


def test_short_calls_are_one_line_and_long_ones_are_wrapped(tower):
    model = load_bundled(RESNET)
    short = CodeSnippet.from_attribution(vizlib.explain(model, tower, "grad-cam", target=4), model).to_python()
    assert 'why = vizlib.explain(model, photo, method="grad-cam", target="church")\n' in short
    long = CodeSnippet.from_attribution(
        vizlib.explain(model, tower, "grad-cam", target=4, against=9, layer="layer2"), model
    )
    assert '    against="parachute",\n    layer="layer2",\n)\n' in long.to_python()
    assert max(map(len, (long.to_python() + long.to_shell() + long.to_client("http://a")).splitlines())) <= 72


def test_code_of_a_wrapped_network_wraps_it(folder, tower):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    model = vizlib.wrap(network, name=HOSTILE)
    attribution = vizlib.explain(model, tower)
    snippet = CodeSnippet.from_attribution(attribution, model, photo="photo.png")
    names: dict[str, Any] = {"network": network}
    exec(compile(snippet.to_python(), "snippet", "exec"), names)
    assert torch.equal(names["why"].heat, attribution.heat)
    assert names["model"].name == HOSTILE
    assert len(snippet.to_shell().splitlines()) == 1
    assert snippet.to_shell().startswith("# ")


def test_code_with_prompts_reproduces_the_map(folder):
    Image.open(EXAMPLES["Coloured digits"]).save("photo.png")
    clip = vizlib.load_clip("clip-digits").with_templates(["{} at the top left", "{}"])
    model = clip.with_prompts(["a red seven", "a blue two"])
    why = vizlib.explain(model, "photo.png", target="a red seven", against="a blue two")
    snippet = CodeSnippet.from_attribution(why, model, photo="photo.png")
    assert torch.equal(run_python(snippet.to_python()), why.heat)
    result = CliRunner().invoke(app, words_of(snippet.to_shell()))
    assert result.exit_code == 0, result.output
    assert Path("photo.attention-relevance.png").exists()
    assert 'api_name="/clip"' in snippet.to_client("http://127.0.0.1/")
    plain = vizlib.load("clip-digits")
    snippet = CodeSnippet.from_attribution(vizlib.explain(plain, "photo.png"), plain, photo="photo.png")
    assert 'vizlib.load("clip-digits")' in snippet.to_python()  # its own prompts


def test_code_of_a_wrapped_clip_says_what_is_missing():
    model = make_clip("open_clip").with_prompts(["a dog", "a cat"])
    snippet = CodeSnippet.from_attribution(vizlib.explain(model, np.zeros((32, 32, 3), np.uint8)), model)
    assert "# `network` and `tokenizer` are your own" in snippet.to_python()
    assert "which only Python can explain" in snippet.to_shell()
