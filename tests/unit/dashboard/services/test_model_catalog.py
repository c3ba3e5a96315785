from __future__ import annotations

import threading
import time

import pytest

import vizlib
from dashboard.services.model_catalog import ModelCatalog
from vizlib.models.loading.model_index import ModelEntry

SMALL = "test_resnet.r160_in1k"


def counting(loaded: list[str], name: str):
    def load():
        loaded.append(name)
        return name  # stands for a model

    return load


def test_only_names_on_the_list_reach_a_loader(monkeypatch):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: pytest.fail(f"{name} was loaded"))
    for name in ("../../etc/passwd", "hf-hub:someone/model", "resnet19-imagenette", "", None):
        with pytest.raises(vizlib.ModelError, match="there is no model"):
            ModelCatalog().get(name)


def test_a_near_miss_is_told_what_was_meant():
    catalog = ModelCatalog([ModelEntry("resnet18-imagenette", "bundled", 22.0)])
    with pytest.raises(vizlib.ModelError, match=r"did you mean resnet18-imagenette\?"):
        catalog.get("resnet18-imagenete")


def test_only_a_few_models_stay_in_memory():
    loaded: list[str] = []
    catalog = ModelCatalog([], extra={name: counting(loaded, name) for name in "abc"}, resident=2)
    for name in "abacab":  # c pushes out b, so b is loaded again
        catalog.get(name)
    assert loaded == ["a", "b", "c", "b"]


def test_two_visitors_who_want_the_same_model_wait_for_one_load():
    loaded: list[str] = []

    def slowly():
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


def test_a_slow_load_holds_up_nobody_who_wants_another_model():
    begun, go_on = threading.Event(), threading.Event()
    loaded: list[str] = []

    def slowly():
        begun.set()
        assert go_on.wait(60)
        return counting(loaded, "slow")()

    catalog = ModelCatalog([], extra={"slow": slowly, "other": counting(loaded, "other")})
    got: list[object] = []
    same = [threading.Thread(target=lambda: got.append(catalog.get("slow")), daemon=True) for _ in range(3)]
    other = threading.Thread(target=lambda: got.append(catalog.get("other")), daemon=True)
    for thread in same:
        thread.start()
    assert begun.wait(60)
    other.start()
    other.join(60)
    assert got == ["other"]  # while the slow one is still under way
    catalog.unload_idle(-1)
    assert list(catalog._loaded) == []  # nor does what tidies up wait
    go_on.set()
    for thread in same:
        thread.join(60)
    assert (got, loaded) == (["other", *["slow"] * 3], ["other", "slow"])


def test_a_load_that_fails_is_tried_again_by_who_waited_for_it():
    tried: list[int] = []

    def fails_once():
        tried.append(1)
        if len(tried) == 1:
            time.sleep(0.05)
            raise vizlib.ModelError("the line was cut")
        return "a"

    catalog = ModelCatalog([], extra={"a": fails_once})
    got: list[object] = []

    def ask():
        try:
            got.append(catalog.get("a"))
        except vizlib.ModelError as error:
            got.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, got)) == ["a", "a", "the line was cut"]
    assert not catalog._loading  # no lock outlives those who wait


def test_no_more_models_than_asked_for_stay_when_many_are_loaded_at_once():
    together = threading.Barrier(4)

    def load():
        together.wait(60)
        return "model"

    catalog = ModelCatalog([], extra=dict.fromkeys("abcd", load), resident=2)
    threads = [threading.Thread(target=catalog.get, args=(name,), daemon=True) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(catalog._loaded) == 2


def test_a_fetch_tells_how_much_of_a_download_has_come(hub):
    catalog = ModelCatalog([ModelEntry(SMALL, "download", 1.9)])
    hub.go_on.clear()
    fetching = catalog.load_with_progress(SMALL)
    here, total = next(fetching)
    assert (0 < here < total, total) == (True, hub.size)
    other = catalog.load_with_progress(SMALL)  # a second visitor sees the same download
    assert next(other)[1] == hub.size
    fetching.close()  # the first one leaves
    hub.go_on.set()
    assert all(come[1] == hub.size for come in other)
    assert list(catalog.count_bytes()) == [SMALL]
    assert list(catalog.load_with_progress(SMALL)) == []
    assert sum(path.endswith("safetensors") for path in hub.asked) == 1


def test_a_fetch_fails_as_a_load_does(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    catalog = ModelCatalog([ModelEntry(SMALL, "download", 1.9)])
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        list(catalog.load_with_progress("hf-hub:someone/model"))
    hub.cut.set()
    with pytest.raises(vizlib.ModelError, match=rf"^{SMALL} could not be downloaded: [^\n]+$"):
        list(catalog.load_with_progress(SMALL))
    assert catalog._downloads == {}
    hub.cut.clear()
    list(catalog.load_with_progress(SMALL))
    assert list(catalog.count_bytes()) == [SMALL]


NEVER = ["hf-hub:someone/model", "local-dir:/etc", "/tmp/evil.pth", "../evil.pt", "torchvision/resnet18", "", None]


@pytest.mark.parametrize("name", [*NEVER, "resnet50.safetensors", "resnet50.a1_in1k/..", "efficientnet_b0", "RESNET50"])
@pytest.mark.parametrize("any_timm", [False, True])
def test_nothing_but_names_of_timms_tables_can_be_typed(monkeypatch, name, any_timm):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: pytest.fail(f"{name} was loaded"))
    catalog = ModelCatalog([ModelEntry("resnet18-imagenette", "bundled", 22.0)], any_timm=any_timm)
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        catalog.get(name)
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        list(catalog.load_with_progress(name))
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        catalog.get_entry(name)
    assert not catalog.is_linkable(str(name))


@pytest.mark.parametrize("name", ["resnet34", "resnet10t", "resnet50.tv_in1k", "deit3_small_patch16_224"])
def test_a_name_that_timm_knows_is_taken_where_that_is_allowed(monkeypatch, name):
    monkeypatch.setattr(vizlib, "load", lambda name, **_: name)
    entries = [ModelEntry("resnet18-imagenette", "bundled", 22.0)]
    with pytest.raises(vizlib.ModelError, match="there is no model"):
        ModelCatalog(entries).get(name)
    assert not ModelCatalog(entries).accepts_typed_names
    catalog = ModelCatalog(entries, any_timm=True)
    assert catalog.accepts_typed_names
    assert catalog.get(name) == name
    assert (catalog.get_entry(name).name, catalog.get_entry(name).needs_download) == (name, True)
    assert not catalog.is_linkable(name)  # a link makes nobody download


def test_a_typed_name_with_weights_on_this_machine_may_be_linked_to(hub):
    catalog = ModelCatalog([], any_timm=True)
    assert not catalog.is_linkable(SMALL)
    catalog.get(SMALL)
    assert catalog.is_linkable(SMALL)
    assert not ModelCatalog([]).is_linkable(SMALL)


def test_a_typed_name_that_is_nearly_right_is_told_what_was_meant():
    catalog = ModelCatalog([ModelEntry("mine", "folder", 22.0)], any_timm=True)
    with pytest.raises(vizlib.ModelError, match=r"there is no model 'resnet34d_' here; did you mean resnet34d or"):
        catalog.get("resnet34d_")
    with pytest.raises(
        vizlib.ModelError, match=r"no model 'resnet34\.x1_in1k' here, .* did you mean resnet34\.a1_in1k"
    ):
        catalog.get("resnet34.x1_in1k")
    with pytest.raises(vizlib.ModelError, match="did you mean mine"):
        catalog.get("minee")


def test_the_menu_says_what_must_be_downloaded_and_how_good_a_bundled_model_is():
    rows = [
        ModelEntry("mine", "bundled", 22.4, accuracy=87.25),
        ModelEntry("here", "downloaded", 46.8),
        ModelEntry("theirs", "download", 101.6),
    ]
    assert ModelCatalog(rows).menu_rows() == [
        ("mine · 87.2 % · 22 MB", "mine"),
        ("here · 47 MB, downloaded", "here"),
        ("theirs · downloads 102 MB", "theirs"),
    ]
