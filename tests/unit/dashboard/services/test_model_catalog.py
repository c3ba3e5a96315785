"""The catalog of models: names, loading, concurrent requests and memory."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from clip_networks import make_clip

import vizlib
from dashboard.services import model_catalog
from dashboard.services.model_catalog import Loader, ModelCatalog
from vizlib.models.loading.model_index import ModelEntry

SMALL = "test_resnet.r160_in1k"


def record_loads(loaded: list[str], name: str) -> Loader:
    def load() -> Any:
        loaded.append(name)
        return name  # stands for a model

    return load


def test_only_listed_names_reach_a_loader(monkeypatch):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: pytest.fail(f"{name} was loaded"))
    for name in ("../../etc/passwd", "hf-hub:someone/model", "resnet19-imagenette", "", None):
        with pytest.raises(vizlib.ModelError, match="there is no model"):
            ModelCatalog().get(name)


def test_unknown_name_error_suggests_a_similar_name():
    catalog = ModelCatalog([ModelEntry("resnet18-imagenette", "bundled", 22.0)])
    with pytest.raises(vizlib.ModelError, match=r"did you mean resnet18-imagenette\?"):
        catalog.get("resnet18-imagenete")


def test_least_recently_used_models_are_unloaded():
    loaded: list[str] = []
    catalog = ModelCatalog([], extra={name: record_loads(loaded, name) for name in "abc"}, resident=2)
    for name in "abacab":  # c replaces b, so b is loaded again
        catalog.get(name)
    assert loaded == ["a", "b", "c", "b"]


def test_concurrent_requests_for_a_model_load_it_once():
    loaded: list[str] = []

    def slowly() -> Any:
        time.sleep(0.05)
        loaded.append("a")
        return "a"

    catalog = ModelCatalog([], extra={"a": slowly})
    threads = [threading.Thread(target=catalog.get, args=("a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["a"]


def test_slow_load_does_not_block_other_models():
    started, go_on = threading.Event(), threading.Event()
    loaded: list[str] = []

    def slowly() -> Any:
        started.set()
        assert go_on.wait(60)
        return record_loads(loaded, "slow")()

    catalog = ModelCatalog([], extra={"slow": slowly, "other": record_loads(loaded, "other")})
    results: list[object] = []
    same = [threading.Thread(target=lambda: results.append(catalog.get("slow")), daemon=True) for _ in range(3)]
    other = threading.Thread(target=lambda: results.append(catalog.get("other")), daemon=True)
    for thread in same:
        thread.start()
    assert started.wait(60)
    other.start()
    other.join(60)
    assert results == ["other"]  # while the slow one still loads
    catalog.unload_idle(-1)
    assert list(catalog._loaded) == []  # unloading does not wait either
    go_on.set()
    for thread in same:
        thread.join(60)
    assert (results, loaded) == (["other", *["slow"] * 3], ["other", "slow"])


def test_failed_load_is_retried_by_a_waiting_thread():
    attempts: list[int] = []

    def fails_once() -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            time.sleep(0.05)
            raise vizlib.ModelError("the connection was closed")
        return "a"

    catalog = ModelCatalog([], extra={"a": fails_once})
    results: list[object] = []

    def request():
        try:
            results.append(catalog.get("a"))
        except vizlib.ModelError as error:
            results.append(str(error))

    threads = [threading.Thread(target=request) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["a", "a", "the connection was closed"]
    assert not catalog._loading  # no lock is left


def test_concurrent_loads_keep_the_limit_of_models_in_memory():
    together = threading.Barrier(4)

    def load() -> Any:
        together.wait(60)
        return "model"

    catalog = ModelCatalog([], extra=dict.fromkeys("abcd", load), resident=2)
    threads = [threading.Thread(target=catalog.get, args=(name,), daemon=True) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(catalog._loaded) == 2


def test_load_with_progress_yields_downloaded_bytes(hub):
    catalog = ModelCatalog([ModelEntry(SMALL, "download", 1.9)])
    hub.resume.clear()
    progress = catalog.load_with_progress(SMALL)
    done, total = next(progress)
    assert (0 < done < total, total) == (True, hub.size)
    other = catalog.load_with_progress(SMALL)  # a second visitor gets the same download
    assert next(other)[1] == hub.size
    progress.close()  # the first visitor leaves
    hub.resume.set()
    assert all(step[1] == hub.size for step in other)
    assert list(catalog.count_bytes()) == [SMALL]
    assert list(catalog.load_with_progress(SMALL)) == []
    assert sum(path.endswith("safetensors") for path in hub.requested_paths) == 1


@pytest.mark.slow
def test_load_with_progress_raises_as_get_does(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    catalog = ModelCatalog([ModelEntry(SMALL, "download", 1.9)])
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        list(catalog.load_with_progress("hf-hub:someone/model"))
    hub.interrupt.set()
    with pytest.raises(vizlib.ModelError, match=rf"^{SMALL} could not be downloaded: [^\n]+$"):
        list(catalog.load_with_progress(SMALL))
    assert catalog._downloads == {}
    hub.interrupt.clear()
    list(catalog.load_with_progress(SMALL))
    assert list(catalog.count_bytes()) == [SMALL]


INVALID_NAMES = [
    "hf-hub:someone/model",
    "local-dir:/etc",
    "/tmp/evil.pth",
    "../evil.pt",
    "torchvision/resnet18",
    "",
    None,
]


@pytest.mark.parametrize(
    "name", [*INVALID_NAMES, "resnet50.safetensors", "resnet50.a1_in1k/..", "torchvision/vgg11", "RESNET50"]
)
@pytest.mark.parametrize("any_timm", [False, True])
def test_typed_names_must_be_names_of_timm_models(monkeypatch, name, any_timm):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: pytest.fail(f"{name} was loaded"))
    catalog = ModelCatalog([ModelEntry("resnet18-imagenette", "bundled", 22.0)], any_timm=any_timm)
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        catalog.get(name)
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        list(catalog.load_with_progress(name))
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        catalog.get_entry(name)
    assert not catalog.is_linkable(str(name))


@pytest.mark.parametrize("name", ["resnet34", "resnet50.tv_in1k", "deit3_small_patch16_224", "efficientnet_b0"])
def test_timm_names_are_accepted_only_with_any_timm(monkeypatch, name):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: name)
    entries = [ModelEntry("resnet18-imagenette", "bundled", 22.0)]
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        ModelCatalog(entries).get(name)
    assert not ModelCatalog(entries).accepts_typed_names
    catalog = ModelCatalog(entries, any_timm=True)
    assert catalog.accepts_typed_names
    assert catalog.get(name) == name
    assert (catalog.get_entry(name).name, catalog.get_entry(name).needs_download) == (name, True)
    assert not catalog.is_linkable(name)  # a link never starts a download


def test_downloaded_timm_model_is_linkable(hub):
    catalog = ModelCatalog([], any_timm=True)
    assert not catalog.is_linkable(SMALL)
    catalog.get(SMALL)
    assert catalog.is_linkable(SMALL)
    assert not ModelCatalog([]).is_linkable(SMALL)


def test_error_for_a_typed_name_suggests_a_similar_name():
    catalog = ModelCatalog([ModelEntry("mine", "folder", 22.0)], any_timm=True)
    with pytest.raises(vizlib.ModelError, match=r"there is no model 'resnet34d_' here; did you mean resnet34d or"):
        catalog.get("resnet34d_")
    with pytest.raises(
        vizlib.ModelError, match=r"no model 'resnet34\.x1_in1k' here, .* did you mean resnet34\.a1_in1k"
    ):
        catalog.get("resnet34.x1_in1k")
    with pytest.raises(vizlib.ModelError, match="did you mean mine"):
        catalog.get("minee")


def test_menu_rows_state_download_size_and_accuracy():
    rows = [
        ModelEntry("mine", "bundled", 22.4, accuracy=87.25),
        ModelEntry("here", "downloaded", 46.8),
        ModelEntry("theirs", "download", 101.6),
    ]
    assert ModelCatalog(rows).list_menu_rows() == [
        ("mine · 87.2 % · 22 MB", "mine"),
        ("here · 47 MB, downloaded", "here"),
        ("theirs · downloads 102 MB", "theirs"),
    ]


def test_models_with_prompts_share_the_network_and_leave_memory_with_it():
    catalog = ModelCatalog(only=["clip-digits", "resnet18-imagenette"], resident=1)
    model = catalog.get("clip-digits\na red seven\na blue two")
    assert list(model.labels) == ["a red seven", "a blue two"]
    assert catalog.get("clip-digits\na red seven\na blue two") is model
    assert catalog.get_loaded("clip-digits\na red seven\na blue two") is model
    assert catalog.get("clip-digits").module.get_submodule("visual") is model.module.get_submodule("visual")
    assert catalog.get_entry("clip-digits\na red seven").name == "clip-digits"
    catalog.get("resnet18-imagenette")
    assert not catalog._prompted
    with pytest.raises(vizlib.ModelError, match="reads no prompts"):
        catalog.get("resnet18-imagenette\na dog")
    with pytest.raises(vizlib.TargetError, match="'elephant' is not among them"):
        catalog.get("clip-digits\nan elephant")


def test_a_clip_without_prompts_of_its_own_starts_with_some(monkeypatch):
    clip = make_clip("open_clip")
    monkeypatch.setattr(vizlib, "load_clip", lambda name: clip)
    monkeypatch.setattr(model_catalog, "FIRST_PROMPTS", ("a dog", "a cat"))
    catalog = ModelCatalog([ModelEntry("open_clip/ViT-B-32/openai", "given", 0.0)])
    assert catalog.get("open_clip/ViT-B-32/openai").labels == ("a dog", "a cat")
