"""What is known of a model: a few numbers large, the rest in groups of rows; what is not known has no row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dashboard.i18n.translate import translate, translate_note, translate_stored
from vizlib import Model
from vizlib.models.loading.checkpoint_files import Sidecar
from vizlib.models.loading.model_index import MAX_CLASSES_BY_NAME, ModelEntry, describe_classes

RowText = str | Sequence[str] | None  # a line, several, or nothing
CROP_TEXT_KEYS = {"center": "card.centre", "squash": "card.squash", "border": "card.border"}
NAMED_SOURCES = ("bundled", "folder", "downloaded", "download")  # those there are words for


def build_model_card(entry: ModelEntry, sidecar: Sidecar, model: Model) -> dict[str, Any]:
    """The card: all that is known of a model, and nothing of what is not."""
    ends = format_confidence_interval(sidecar)
    right = translate("card.right-between", ends=ends) if ends else translate("card.right")
    source = translate(f"card.{entry.source}") if entry.source in NAMED_SOURCES else ""
    figures = {
        right: format_accuracy(entry),
        translate("card.parameters"): format_parameter_count(sum(weights.numel() for weights in model.module.parameters())),
        translate("card.classes"): f"{len(model.labels):,}",
        source: f"{entry.size_mb:.0f} MB" if entry.size_mb else "",
    }
    what = {
        translate("card.architecture"): describe_architecture(sidecar, model),
        translate("card.class-names"): describe_classes(entry, model),
        translate("card.measured"): describe_test_set(entry, sidecar),
    }
    trust = {
        translate("card.weaknesses"): [translate_stored(one) for one in sidecar.weaknesses],
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
    """The one thing to know before believing an answer."""
    count = f"{len(model.labels):,}"
    if entry.accuracy is None:
        return translate("card.lead", count=count)
    return translate("card.lead-right", count=count, share=format_accuracy(entry))


def format_accuracy(entry: ModelEntry) -> str:
    """The share of photos it is right about, where that was measured."""
    return "" if entry.accuracy is None else f"{entry.accuracy:.1f} %"


def describe_architecture(sidecar: Sidecar, model: Model) -> str:
    """The network's own name, and the family vizlib knows it by."""
    known = getattr(model.module, "pretrained_cfg", None) or {}  # timm's networks carry theirs
    name = sidecar.architecture or (known.get("architecture") if isinstance(known, Mapping) else None)
    name = str(name or type(model.module).__name__)
    family = model.family.name if model.family else ""
    return translate("card.family", name=name, family=family) if family and family.lower() != name.lower() else name


def describe_classes(entry: ModelEntry, model: Model) -> str:
    """What a model tells apart: a few classes by name, many in a word."""
    return (
        describe_classes(model.labels)
        if len(model.labels) <= MAX_CLASSES_BY_NAME
        else translate_stored(entry.classes or describe_classes(model.labels))
    )


def describe_test_set(entry: ModelEntry, sidecar: Sidecar) -> str:
    """How many and which photos its accuracy is of."""
    if entry.accuracy is None:
        return translate("card.not-measured")
    photos, data = sidecar.accuracy.get("photos"), translate_stored(to_plain_text(sidecar.accuracy.get("data")))
    if not isinstance(photos, int):
        return data
    return (
        translate("card.photos", count=f"{photos:,}", data=data)
        if data
        else translate("card.some-photos", count=f"{photos:,}")
    )


def format_confidence_interval(sidecar: Sidecar) -> str:
    """The 95 % interval of its accuracy, where the sidecar gives one."""
    ends = sidecar.accuracy.get("interval95")
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        return ""
    return translate("card.between", low=f"{ends[0]:.1f}", high=f"{ends[1]:.1f}")


def describe_preprocessing(model: Model) -> dict[str, str]:
    """What becomes of a photo before the network gets it."""
    ours = model.preprocessing
    height, width = ours.input_size
    crop = translate(CROP_TEXT_KEYS[ours.crop_mode])
    if ours.crop_mode == "center" and ours.crop_pct < 1:
        crop = translate("card.centre-kept", kept=f"{100 * ours.crop_pct:.4g}")
    return {
        translate("card.size"): translate("card.pixels", size=f"{height} × {width}", interpolation=ours.interpolation),
        translate("card.crop"): crop,
        translate("card.channels"): translate("card.rgb"),
        translate("card.mean"): ", ".join(f"{value:.4g}" for value in ours.mean),
        translate("card.deviation"): ", ".join(f"{value:.4g}" for value in ours.std),
    }


def describe_training(origin: Mapping[str, object]) -> list[dict[str, Any]]:
    """How a network was trained, in a group of rows, and another one for each stage if there were several."""
    given = origin.get("stages")
    stages = [stage for stage in given if isinstance(stage, Mapping)] if isinstance(given, list) else []
    command = translate("card.command")
    common = {
        translate("model.data"): to_plain_text(origin.get("data")),
        translate("model.licence"): to_plain_text(origin.get("data_licence")),
        translate("card.machine"): to_plain_text(origin.get("machine")),
    }
    if len(stages) > 1:
        each = [
            build_sidecar_group(translate("card.stage", number=i), describe_stage(stage), command) for i, stage in enumerate(stages, 1)
        ]
        return [build_sidecar_group(translate("card.trained"), common), *each]
    rows = {**common, **describe_stage(stages[0] if stages else origin)}
    return [build_sidecar_group(translate("card.trained"), rows, command)]


def build_sidecar_group(heading: str, rows: Mapping[str, RowText], *code: str) -> dict[str, Any]:
    """Rows in a file's own words, English whatever the visitor speaks; but how long it took is said here."""
    return build_group(heading, rows, code, verbatim=[name for name in rows if name != translate("card.took")])


def describe_stage(stage: Mapping[str, object]) -> dict[str, str]:
    """One stage of a training: where it began, who taught, how long it took, and the command that does it again."""
    epochs, minutes = to_plain_text(stage.get("epochs")), to_plain_text(stage.get("minutes"))
    took = [
        translate("card.epochs", count=epochs) if epochs else "",
        translate("card.minutes", count=minutes) if minutes else "",
    ]
    return {
        translate("card.start"): to_plain_text(stage.get("start")),
        translate("card.teacher"): to_plain_text(stage.get("teacher")),
        translate("card.altered"): to_plain_text(stage.get("augmentation")),
        translate("card.took"): ", ".join(part for part in took if part),
        translate("card.remark"): to_plain_text(stage.get("note")),
        translate("card.command"): to_plain_text(stage.get("command")),
    }


def describe_ood_score(sidecar: Sidecar, model: Model) -> list[str]:
    """How it is told that a photo is unlike those the model knows, and how often that works; nothing if it is not."""
    known = model.ood_score
    if known is None:
        return []
    facts = {"score": known.score.replace("-", " "), "threshold": f"{known.threshold:.3g}"}
    said = [translate("card.out-of-distribution", **facts, kept=f"{100 * known.coverage:.0f}", data=translate_stored(known.data))]
    other = sidecar.ood.get("elsewhere")
    if isinstance(other, Mapping):
        photos, flagged = other.get("photos"), other.get("flagged")
        if isinstance(photos, int) and isinstance(flagged, (int, float)):
            data = translate_stored(to_plain_text(other.get("data")))
            key = "card.flagged-of" if data else "card.flagged"
            said.append(translate(key, count=f"{photos:,}", data=data, share=f"{100 * flagged:.0f}"))
    return said


def describe_faithfulness(sidecar: Sidecar) -> str:
    """What came of the deletion test of its maps, where one was made."""
    tested = sidecar.faithfulness
    found, blind, photos = (tested.get(key) for key in ("auc", "centred_gaussian", "photos"))
    if not isinstance(found, float) or not isinstance(blind, float):
        return ""
    return translate(
        "card.faithful" if found < blind else "card.not-faithful",
        method=to_plain_text(tested.get("method")),
        found=f"{found:.3f}",
        blind=f"{blind:.3f}",
        photos=to_plain_text(photos),
    )


def build_card(name: str, lead: str, figures: Mapping[str, str], groups: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A name, a sentence, figures by what they count, and groups; empty ones are left out."""
    return {
        "name": name,
        "lead": lead,
        "figures": [{"value": value, "label": label} for label, value in figures.items() if value],
        "groups": [group for group in groups if group["rows"]],
    }


def build_group(heading: str, rows: Mapping[str, RowText], code: Sequence[str] = (), verbatim: Sequence[str] = ()) -> dict[str, Any]:
    """Rows by name under a heading; those named in `code` are commands to copy, those in `own` a file's own words."""
    lines = {name: [said] if isinstance(said, str) else list(said or ()) for name, said in rows.items()}
    kept = {name: [line for line in said if line] for name, said in lines.items()}
    return {
        "heading": heading,
        "rows": [
            {"name": name, "lines": said, "code": name in code, "own": name in verbatim}
            for name, said in kept.items()
            if said
        ],
    }


def to_plain_text(value: object) -> str:
    """What a sidecar says under one name, as a line of text; nothing for what is no text and no number."""
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(to_plain_text, value)))
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def format_parameter_count(count: int) -> str:
    """A number of parameters as a person reads it.

    >>> millions(11_181_642), millions(86_567_656), millions(420)
    ('11.2 M', '86.6 M', '420')
    """
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count:,}"
