"""The card of a model: a few large figures, and groups of rows; unknown facts have no row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dashboard.i18n.translate import translate, translate_note, translate_stored
from vizlib import Model
from vizlib.models.loading.checkpoint_files import Sidecar
from vizlib.models.loading.model_index import MAX_CLASSES_BY_NAME, ModelEntry, describe_classes
from vizlib.models.preprocessing import TimmPreprocessing

RowText = str | Sequence[str] | None  # one line, several or none
CROP_TEXT_KEYS = {"center": "card.centre", "squash": "card.squash", "border": "card.border"}
CHANNEL_TEXT_KEYS = {"RGB": "card.rgb", "BGR": "card.bgr"}
NAMED_SOURCES = ("bundled", "folder", "downloaded", "download")  # sources of weights that have a description


def build_model_card(entry: ModelEntry, sidecar: Sidecar, model: Model) -> dict[str, Any]:
    """Return the value of the card of a model, from its index entry, its sidecar file and the model itself.

    Args:
        entry: The model's entry in the index.
        sidecar: What its sidecar file states.
        model: The loaded model.
    """
    ends = format_confidence_interval(sidecar)
    accuracy = translate("card.right-between", ends=ends) if ends else translate("card.right")
    source = translate(f"card.{entry.source}") if entry.source in NAMED_SOURCES else ""
    figures = {
        accuracy: format_accuracy(entry),
        translate("card.parameters"): format_parameter_count(
            sum(weights.numel() for weights in model.module.parameters())
        ),
        translate("card.classes"): f"{len(model.labels):,}",
        source: f"{entry.size_mb:.0f} MB" if entry.size_mb else "",
    }
    what = {
        translate("card.architecture"): describe_architecture(sidecar, model),
        translate("card.class-names"): describe_known_classes(entry, model),
        translate("card.measured"): describe_test_set(entry, sidecar),
    }
    trust = {
        translate("card.weaknesses"): [translate_stored(weakness) for weakness in sidecar.weaknesses],
        translate("card.others"): describe_ood_score(sidecar, model),
        translate("card.maps"): describe_faithfulness(sidecar),
        translate("card.notes"): [translate_note(note) for note in model.notes],
    }
    groups = [
        build_group(translate("card.what"), what),
        build_group(translate("card.input"), describe_preprocessing(model)),
        build_group(translate("card.trust"), trust),
    ]
    return build_card(entry.name, format_lead(entry, model), figures, [*groups, *describe_training(sidecar.origin)])


def format_lead(entry: ModelEntry, model: Model) -> str:
    """Return the first sentence of a model's card: the number of classes, and the accuracy if it was measured."""
    count = f"{len(model.labels):,}"
    if entry.accuracy is None:
        return translate("card.lead", count=count)
    return translate("card.lead-right", count=count, share=format_accuracy(entry))


def format_accuracy(entry: ModelEntry) -> str:
    """Return the top-1 accuracy on a model's card, in percent; an empty string if it was not measured."""
    return "" if entry.accuracy is None else f"{entry.accuracy:.1f} %"


def describe_architecture(sidecar: Sidecar, model: Model) -> str:
    """Return the row of a model's card on the architecture: its name and that of its family."""
    config = getattr(model.module, "pretrained_cfg", None) or {}  # of timm's networks
    name = sidecar.architecture or (config.get("architecture") if isinstance(config, Mapping) else None)
    name = str(name or type(model.module).__name__)
    family = model.family.name if model.family else ""
    return translate("card.family", name=name, family=family) if family and family.lower() != name.lower() else name


def describe_known_classes(entry: ModelEntry, model: Model) -> str:
    """Return the row of a model's card on its classes: their names if they are few, else their description."""
    if len(model.labels) <= MAX_CLASSES_BY_NAME:
        return describe_classes(model.labels)
    plain = describe_classes(model.labels)
    if entry.classes and entry.classes != plain:
        return translate_stored(entry.classes)
    return translate("card.many-classes", count=f"{len(model.labels):,}")


def describe_test_set(entry: ModelEntry, sidecar: Sidecar) -> str:
    """Return the row of a model's card on the test set: its number of photos and its name."""
    if entry.accuracy is None:
        return translate("card.not-measured")
    photos, data = sidecar.accuracy.get("photos"), translate_stored(to_plain_text(sidecar.accuracy.get("data")))
    if not isinstance(photos, int):
        return data
    count = f"{photos:,}"
    return translate("card.photos", count=count, data=data) if data else translate("card.some-photos", count=count)


def format_confidence_interval(sidecar: Sidecar) -> str:
    """Return the accuracy's 95 % confidence interval for a model's card; an empty string if there is none."""
    ends = sidecar.accuracy.get("interval95")
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        return ""
    return translate("card.between", low=f"{ends[0]:.1f}", high=f"{ends[1]:.1f}")


def describe_preprocessing(model: Model) -> dict[str, str]:
    """Return the rows of a model's card on preprocessing: size, crop (if known), channels, mean, standard deviation."""
    steps = model.preprocessing
    height, width = steps.input_size
    size = f"{height} × {width}"
    rows = {translate("card.size"): size}
    if isinstance(steps, TimmPreprocessing):
        crop = translate(CROP_TEXT_KEYS[steps.crop_mode])
        if steps.crop_mode == "center" and steps.crop_pct < 1:
            crop = translate("card.centre-kept", share=f"{100 * steps.crop_pct:.4g}")
        rows[translate("card.size")] = translate("card.pixels", size=size, interpolation=steps.interpolation)
        rows[translate("card.crop")] = crop
    return {
        **rows,
        translate("card.channels"): translate(CHANNEL_TEXT_KEYS[getattr(steps, "channels", "RGB")]),
        translate("card.mean"): ", ".join(f"{value:.4g}" for value in steps.mean),
        translate("card.deviation"): ", ".join(f"{value:.4g}" for value in steps.std),
    }


def describe_training(origin: Mapping[str, object]) -> list[dict[str, Any]]:
    """Return the groups of a model's card on its training: one, and one for each stage if there were several."""
    entries = origin.get("stages")
    stages = [stage for stage in entries if isinstance(stage, Mapping)] if isinstance(entries, list) else []
    command = translate("card.command")
    common = {
        translate("model.data"): to_plain_text(origin.get("data")),
        translate("model.licence"): to_plain_text(origin.get("data_licence")),
        translate("card.machine"): to_plain_text(origin.get("machine")),
    }
    if len(stages) > 1:
        stage_groups = [
            build_sidecar_group(translate("card.stage", number=i), describe_stage(stage), command)
            for i, stage in enumerate(stages, 1)
        ]
        return [build_sidecar_group(translate("card.trained"), common), *stage_groups]
    rows = {**common, **describe_stage(stages[0] if stages else origin)}
    return [build_sidecar_group(translate("card.trained"), rows, command)]


def build_sidecar_group(heading: str, rows: Mapping[str, RowText], *code: str) -> dict[str, Any]:
    """Return a group of a card's rows with texts of a sidecar, which stay English but for the row on the duration."""
    return build_group(heading, rows, code, verbatim=[name for name in rows if name != translate("card.took")])


def describe_stage(stage: Mapping[str, object]) -> dict[str, str]:
    """Return a card's rows on one stage of a training: initial weights, teacher, augmentation, duration, command."""
    epochs, minutes = to_plain_text(stage.get("epochs")), to_plain_text(stage.get("minutes"))
    duration = [
        translate("card.epochs", count=epochs) if epochs else "",
        translate("card.minutes", count=minutes) if minutes else "",
    ]
    return {
        translate("card.start"): to_plain_text(stage.get("start")),
        translate("card.teacher"): to_plain_text(stage.get("teacher")),
        translate("card.altered"): to_plain_text(stage.get("augmentation")),
        translate("card.took"): ", ".join(filter(None, duration)),
        translate("card.remark"): to_plain_text(stage.get("note")),
        translate("card.command"): to_plain_text(stage.get("command")),
    }


def describe_ood_score(sidecar: Sidecar, model: Model) -> list[str]:
    """Return a model card's sentences on the OOD score and how many photos of other data it flags; none without one."""
    ood_score = model.ood_score
    if ood_score is None:
        return []
    facts = {"score": ood_score.score.replace("-", " "), "threshold": f"{ood_score.threshold:.3g}"}
    coverage, data = f"{100 * ood_score.coverage:.0f}", translate_stored(ood_score.data)
    sentences = [translate("card.out-of-distribution", **facts, coverage=coverage, data=data)]
    test = sidecar.ood.get("other_photos")
    if isinstance(test, Mapping):
        photos, flagged = test.get("photos"), test.get("flagged")
        if isinstance(photos, int) and isinstance(flagged, (int, float)):
            data = translate_stored(to_plain_text(test.get("data")))
            key = "card.flagged-of" if data else "card.flagged"
            sentences.append(translate(key, count=f"{photos:,}", data=data, share=f"{100 * flagged:.0f}"))
    return sentences


def describe_faithfulness(sidecar: Sidecar) -> str:
    """Return a model card's sentence on the deletion test of its maps against a centred Gaussian; empty without one."""
    test = sidecar.faithfulness
    auc, gaussian_auc, photos = (test.get(key) for key in ("auc", "centred_gaussian", "photos"))
    if not isinstance(auc, float) or not isinstance(gaussian_auc, float):
        return ""
    return translate(
        "card.faithful" if auc < gaussian_auc else "card.not-faithful",
        method=to_plain_text(test.get("method")),
        auc=f"{auc:.3f}",
        baseline=f"{gaussian_auc:.3f}",
        photos=to_plain_text(photos),
    )


def build_card(name: str, lead: str, figures: Mapping[str, str], groups: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the value of a card, without empty figures and groups.

    Args:
        name: The title.
        lead: The first sentence.
        figures: Large figures by their description.
        groups: Groups of rows from `build_group`.
    """
    return {
        "name": name,
        "lead": lead,
        "figures": [{"value": value, "label": label} for label, value in figures.items() if value],
        "groups": [group for group in groups if group["rows"]],
    }


def build_group(
    heading: str, rows: Mapping[str, RowText], code: Sequence[str] = (), verbatim: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a group of rows of a card, without the empty ones.

    Args:
        heading: The heading of the group.
        rows: The lines of each row by name.
        code: The names of the rows whose lines are commands.
        verbatim: The names of the rows with untranslated texts of a file.
    """
    group = []
    for name, texts in rows.items():
        lines = [line for line in ([texts] if isinstance(texts, str) else texts or ()) if line]
        if lines:
            group.append({"name": name, "lines": lines, "code": name in code, "verbatim": name in verbatim})
    return {"heading": heading, "rows": group}


def to_plain_text(value: object) -> str:
    """Return a value of a sidecar file as text for a card; an empty string unless it is text, a number or a list."""
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(to_plain_text, value)))
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def format_parameter_count(count: int) -> str:
    """Return the number of parameters as a card shows it, in millions if it is large.

    >>> format_parameter_count(11_181_642), format_parameter_count(86_567_656), format_parameter_count(420)
    ('11.2 M', '86.6 M', '420')
    """
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count:,}"
