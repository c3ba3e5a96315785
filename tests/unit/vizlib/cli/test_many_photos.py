"""Many photos in one call: folders, patterns, lists; no result replaces another, none is lost, none is kept."""

from __future__ import annotations

import io
import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

import vizlib
from vizlib.cli import app
from vizlib.cli.photo_lists import list_photos, make_names, make_stems
from vizlib.core.errors import TargetError
from vizlib.core.images import open_image as decode_photo


class Shell:
    """Runs `vizlib` with a tiny model that is loaded once."""

    def __init__(self, model: vizlib.Model) -> None:
        self.model = model

    def __call__(self, command: str, *words, code: int = 0, stdin: str | bytes | None = None):
        result = CliRunner().invoke(app, [command, *map(str, words), "-m", self.model.name], input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        return result


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vizlib.wrap(
        timm.create_model("test_resnet", num_classes=3).eval(),
        preprocessing={"input_size": (3, 64, 64)},
        labels=["a", "b", "c"],
        name="tiny",
    )


@pytest.fixture
def shell(model, monkeypatch, tmp_path):
    monkeypatch.setattr(vizlib, "load", lambda *_, **__: model)
    monkeypatch.chdir(tmp_path)
    return Shell(model)


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (60, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, "PNG")
    return path


def read_values(file: str) -> np.ndarray:
    return np.array(json.loads(Path(file).read_text())["values"])


# ------------------------------------------------------------------------------------------ names of the results


@pytest.mark.parametrize(
    "names",
    [
        ["train/a/001.png", "val/a/001.png", "test/a/001.png"],  # the folders that differ are further up
        ["a/001.png", "A/001.png", "a/001.PNG"],  # equal where case does not count
        ["a-b/c.png", "b/c.png", "a/b-c.png", "c.png"],
        ["x.png", "sub/x.png", "sub/sub/x.png"],
        ["x.jpg", "x.jpg.png", "y/x.jpg"],
        [f"{folder}/{i:03}.png" for folder in ("cats", "dogs") for i in range(3)],
    ],
)
def test_photos_of_the_same_name_get_different_files_with_their_own_results(names, shell, tmp_path):
    paths = [tmp_path / name for name in names]
    if (
        len({str(path).lower() for path in paths}) < len(paths)
        and (tmp_path / "A").exists() == (tmp_path / "a").exists()
    ):
        (tmp_path / "probe").mkdir()
        if (tmp_path / "PROBE").exists():
            pytest.skip("this file system ignores case")
    for seed, path in enumerate(paths):
        write_photo(path, seed)
    rows = json.loads(shell("explain", *paths, "-x", "saliency", "--as", "json", "-o", "out", "--json").stdout)
    assert [row["path"] for row in rows] == [row["photo"]["path"] for row in rows] == list(map(str, paths))
    files = [row["file"] for row in rows]
    assert len({file.lower() for file in files}) == len(paths)
    assert sorted(files) == sorted(str(file) for file in Path("out").iterdir())
    for path, file in zip(paths, files, strict=True):
        expected = vizlib.explain(shell.model, path, "saliency").heat.numpy()
        np.testing.assert_allclose(read_values(file), expected, rtol=1e-4)


def test_names_do_not_depend_on_the_order_and_are_numbered_at_last():
    paths = [Path("a/x/1.jpg"), Path("b/x/1.jpg"), Path("c/2.jpg")]
    named = dict(zip(paths, make_stems(paths), strict=True))
    assert named == dict(zip(paths[::-1], make_stems(paths[::-1]), strict=True))
    assert list(named.values()) == ["a-x-1.jpg", "b-x-1.jpg", "2"]
    assert make_stems([Path("../a/1.jpg"), Path("/a/1.jpg"), Path("a/1.jpg")]) == ["a-1.jpg", "a-1.jpg-2", "a-1.jpg-3"]
    assert make_names([Path("a/x/1.jpg"), Path("b/x/1.jpg")]) == ["a/x/1.jpg", "b/x/1.jpg"]


def test_result_that_would_replace_a_photo_is_refused_before_anything_is_written(shell, tmp_path):
    photos = [write_photo(tmp_path / "cat.jpg"), write_photo(tmp_path / "cat.saliency.png", 1)]
    before = [photo.read_bytes() for photo in photos]
    for method in ("saliency", "all"):
        message = shell("explain", *photos, "-x", method, "-o", tmp_path, code=2).stderr
        assert message == (
            "vizlib: the photo 'cat.saliency.png' would be replaced by the result of another; choose another folder "
            "with --out\n"
        )
    assert [photo.read_bytes() for photo in photos] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat.jpg", "cat.saliency.png"]
    shell("explain", *photos, "-x", "saliency", "-o", tmp_path / "out")
    assert [photo.read_bytes() for photo in photos] == before


# ------------------------------------------------------------------------------------------ what arguments name


def test_folder_stands_for_all_photos_in_it_in_order(shell, tmp_path):
    names = ["b/2.png", "b/1.png", "a.PNG", "c/d/e.tiff"]
    for seed, name in enumerate(names):
        write_photo(tmp_path / "photos" / name, seed)
    for name in (".hidden.png", ".cache/x.png", "b/1.grad-cam.png"):
        write_photo(tmp_path / "photos" / name)
    (tmp_path / "photos" / "labels.csv").write_text("1,2")
    result = shell("explain", "photos", "-x", "saliency", "-o", "out", "--jsonl")
    expected = [str(Path("photos", name)) for name in sorted(names)]
    assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == expected
    assert result.stderr == "vizlib: 2 files in 'photos' are no photos by their names\n"
    (tmp_path / "empty").mkdir()
    assert "the folder 'empty' holds no photo" in shell("explain", "photos", "empty", code=2).stderr


def test_pattern_in_quotation_marks_is_expanded_unless_a_file_has_that_name(shell, tmp_path):
    for name in ("x/1.png", "x/y/2.png", "z/3.jpg", "[1].png"):
        write_photo(tmp_path / name)
    lines = shell("predict", "**/*.png", "--jsonl", "--top", 1).stdout.splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["[1].png", str(Path("x/1.png")), str(Path("x/y/2.png"))]
    assert list_photos(["[1].png"]) == [Path("[1].png")]
    assert list_photos(["?/[0-9].*"]) == [Path("x/1.png"), Path("z/3.jpg")]
    assert "no file matches the pattern 'w/*.png'" in shell("predict", "w/*.png", code=2).stderr


def test_dash_reads_files_and_folders_from_standard_input(shell, tmp_path):
    for name in ("a b.png", "more/c.png", "given.png"):
        write_photo(tmp_path / name)
    odd = os.fsdecode(b"\xff.png")
    write_photo(tmp_path / odd)
    stdin = b"a b.png\r\n\nmore\n\xff.png\n"
    lines = shell(
        "explain", "given.png", "-", "-x", "saliency", "-o", "out", "--jsonl", stdin=stdin
    ).stdout.splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["given.png", "a b.png", str(Path("more/c.png")), odd]
    shell("explain", "-", "-x", "saliency", "-o", "out", stdin=stdin)  # a name that is no UTF-8 is printed too
    assert "the list on standard input is empty" in shell("explain", "-", code=2, stdin="\n").stderr


def test_photo_that_is_named_twice_is_explained_once(shell, tmp_path):
    write_photo(tmp_path / "photos" / "1.png")
    result = shell("explain", "photos", "photos/1.png", "photos/../photos/1.png", "-x", "saliency", "--json")
    paths = [row["path"] for row in json.loads(result.stdout)]
    assert paths == [str(Path("photos/1.png")), str(Path("photos/../photos/1.png"))]
    assert "vizlib: 1 photos that are named more than once are used once\n" in result.stderr


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("command", ["explain", "predict"])
@pytest.mark.parametrize("form", [[], ["--json"], ["--jsonl"]])
def test_photo_that_cannot_be_used_does_not_lose_the_results_of_the_others(command, form, shell, tmp_path):
    good = [write_photo(tmp_path / f"{i}.png", i) for i in range(3)]
    bad = tmp_path / "page.png"
    bad.write_text("<html>")
    missing = tmp_path / "missing.png"
    options = ["-x", "saliency", "-o", "out"] if command == "explain" else []
    result = shell(command, good[0], bad, good[1], missing, good[2], *options, *form, code=1)
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"vizlib: {bad}: 'page.png' is a web page")
    assert lines[1].startswith(f"vizlib: {missing}: there is no file 'missing.png'")
    assert lines[2:] == ["vizlib: 2 of 5 photos cannot be used"]
    if form == ["--jsonl"]:
        assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == list(map(str, good))
    elif form:
        rows = json.loads(result.stdout)
        assert list(rows if command == "predict" else [row["path"] for row in rows]) == list(map(str, good))
    else:
        assert "page.png" not in result.stdout
    if command == "explain":
        assert sorted(path.name for path in Path("out").iterdir()) == [f"{i}.saliency.png" for i in range(3)]


@pytest.mark.parametrize("command", ["explain", "predict"])
def test_exit_code_is_2_if_there_is_no_result(command, shell, tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"text")
    assert shell(command, "1.png", "2.png", "--json", code=2).stdout == {"explain": "[]\n", "predict": "{}\n"}[command]
    single = shell(command, "1.png", "--json", code=2)
    assert single.stderr.startswith("vizlib: '1.png' is text")
    assert single.stderr.count("\n") == 1
    assert single.stdout == ""


def test_error_that_is_not_of_a_photo_ends_the_command_with_complete_json(shell, tmp_path, monkeypatch):
    photos = [write_photo(tmp_path / f"{i}.png", i) for i in range(4)]
    result = shell("explain", *photos, "-x", "saliency", "-t", "zebra", "--json", code=2)
    assert result.stderr.count("\n") == 1  # once, and not for each photo
    assert "zebra" in result.stderr
    stream, calls = vizlib.explain_stream, []

    def fail_at_third(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise TargetError("no more")
        return stream(*args, **options)

    monkeypatch.setattr(vizlib, "explain_stream", fail_at_third)
    result = shell("explain", *photos, "-x", "saliency", "-o", "out", "--json", code=2)
    assert [row["path"] for row in json.loads(result.stdout)] == list(map(str, photos[:2]))
    assert len(list(Path("out").iterdir())) == 2


# ------------------------------------------------------------------------------------------ memory and streaming


@pytest.mark.parametrize("command", ["explain", "explain --report", "explain all", "predict"])
def test_one_photo_at_a_time_is_in_memory(command, shell, tmp_path, monkeypatch):
    photos = [write_photo(tmp_path / f"{i}.png", i) for i in range(5)]
    references, alive = [], []

    def open_image(source):
        alive.append(sum(reference() is not None for reference in references))
        photo = decode_photo(source)
        references.append(weakref.ref(photo))
        return photo

    monkeypatch.setattr(vizlib, "open_image", open_image)
    options = {
        "explain": ["-x", "saliency"],
        "explain --report": ["-x", "saliency", "--report", tmp_path / "why.html"],
        "explain all": ["-x", "all"],
        "predict": [],
    }[command]
    options += [] if command == "predict" else ["-o", tmp_path / "out"]
    shell(command.split()[0], *photos, *options)
    assert len(alive) == 5
    assert max(alive) <= (1 if "report" in command else 0)  # a report compares a photo with the one before
    if "report" in command:
        assert (tmp_path / "why.html").read_text().count('<section class="pair ') == 5


def test_results_are_printed_as_soon_as_they_are_there(shell, tmp_path, monkeypatch):
    photos = [write_photo(tmp_path / f"{i}.png", i) for i in range(3)]
    seen, echo = [], io.StringIO()
    monkeypatch.setattr(
        "typer.echo", lambda text="", **options: print(text, end="" if options.get("nl") is False else "\n", file=echo)
    )

    def open_image(source):
        seen.append(echo.getvalue().count("saliency.png"))
        return decode_photo(source)

    monkeypatch.setattr(vizlib, "open_image", open_image)
    for form in ([], ["--json"], ["--jsonl"]):
        seen.clear()
        echo.truncate(0)
        shell("explain", *photos, "-x", "saliency", "-o", "out", *form)
        assert seen == [0, 1, 2]


def test_help_states_the_names_and_the_arguments():
    text = " ".join(CliRunner().invoke(app, ["explain", "--help"], env={"COLUMNS": "400"}).output.split())
    for part in (
        "NAME.METHOD.png",
        "cats-001.jpg",
        "folders with all in them",
        "standard input",
        "exit code is then 1",
    ):
        assert part in text
