"""What is known of a model: a few numbers large, the rest in groups of rows; what is not known has no row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vizlib import Model
from vizlib.checkpoints import Sidecar
from vizlib.entries import FEW, Entry, describe

Said = str | Sequence[str] | None  # a line, several, or nothing
CROPS = {
    "center": "resized, then cut out of the middle",
    "squash": "squashed whole into this size",
    "border": "whole, with a border to fill this size",
}
SOURCES = {
    "bundled": "comes with vizlib",
    "folder": "a file of yours",
    "downloaded": "downloaded already",
    "download": "must be downloaded first",
}


def about(entry: Entry, sidecar: Sidecar, model: Model) -> dict[str, Any]:
    """The card: all that is known of a model, and nothing of what is not."""
    ends = interval(sidecar)
    figures = {
        "right at the first guess" + (f"; 95 % interval {ends}" if ends else ""): share(entry),
        "parameters": millions(sum(weights.numel() for weights in model.module.parameters())),
        "classes": f"{len(model.labels):,}",
        SOURCES.get(entry.source, ""): f"{entry.megabytes:.0f} MB" if entry.megabytes else "",
    }
    what = {
        "Architecture": architecture(sidecar, model),
        "Knows": describe(model.labels) if len(model.labels) <= FEW else entry.classes or describe(model.labels),
        "Measured on": measured_on(entry, sidecar),
    }
    trust = {
        "Weaknesses": sidecar.weaknesses,
        "Other photos": familiar(sidecar, model),
        "Its maps": faithful(sidecar),
        "Notes": model.notes,
    }
    groups = [group("What it is", what), group("What it is shown", shown(model)), group("How far to trust it", trust)]
    return card(entry.name, lead(entry, model), figures, [*groups, *training(sidecar.origin)])


def lead(entry: Entry, model: Model) -> str:
    """The one thing to know before believing an answer."""
    told = f"It names one of {len(model.labels):,} classes for every photo, whatever the photo shows."
    if entry.accuracy is None:
        return f"{told} How often it is right was not measured here."
    return (
        f"{told} Shown one of these, it is right {share(entry)} of the time; shown anything else, it cannot be right."
    )


def share(entry: Entry) -> str:
    """The share of photos it is right about, where that was measured."""
    return "" if entry.accuracy is None else f"{entry.accuracy:.1f} %"


def architecture(sidecar: Sidecar, model: Model) -> str:
    """The network's own name, and the family vizlib knows it by."""
    known = getattr(model.module, "pretrained_cfg", None) or {}  # timm's networks carry theirs
    name = sidecar.architecture or (known.get("architecture") if isinstance(known, Mapping) else None)
    name = str(name or type(model.module).__name__)
    family = model.family.name if model.family else ""
    return f"{name}, of the {family} family" if family and family.lower() != name.lower() else name


def measured_on(entry: Entry, sidecar: Sidecar) -> str:
    """How many and which photos its accuracy is of."""
    if entry.accuracy is None:
        return "Not measured here"
    photos, data = sidecar.accuracy.get("photos"), plain(sidecar.accuracy.get("data"))
    return f"{photos:,} {data or 'photos'}" if isinstance(photos, int) else data


def interval(sidecar: Sidecar) -> str:
    """The 95 % interval of its accuracy, where the sidecar gives one."""
    ends = sidecar.accuracy.get("interval95")
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        return ""
    return f"{ends[0]:.1f} to {ends[1]:.1f} %"


def shown(model: Model) -> dict[str, str]:
    """What becomes of a photo before the network gets it."""
    ours = model.preprocessing
    height, width = ours.input_size
    kept = f" ({100 * ours.crop_pct:.4g} % of each side)" if ours.crop_mode == "center" and ours.crop_pct < 1 else ""
    return {
        "Size": f"{height} × {width} pixels, {ours.interpolation}",
        "Crop": CROPS[ours.crop_mode] + kept,
        "Channels": "red, green, blue (RGB), each from 0 to 1",
        "Mean": ", ".join(f"{value:.4g}" for value in ours.mean),
        "Deviation": ", ".join(f"{value:.4g}" for value in ours.std),
    }


def training(origin: Mapping[str, object]) -> list[dict[str, Any]]:
    """How a network was trained, in a group of rows, and another one for each stage if there were several."""
    given = origin.get("stages")
    stages = [stage for stage in given if isinstance(stage, Mapping)] if isinstance(given, list) else []
    common = {
        "Data": plain(origin.get("data")),
        "Licence": plain(origin.get("data_licence")),
        "Machine": plain(origin.get("machine")),
    }
    if len(stages) > 1:
        each = [group(f"Stage {i}", stage_of(stage), ["Command"]) for i, stage in enumerate(stages, 1)]
        return [group("How it was trained", common), *each]
    rows = {**common, **stage_of(stages[0] if stages else origin)}
    return [group("How it was trained", rows, ["Command"])]


def stage_of(stage: Mapping[str, object]) -> dict[str, str]:
    """One stage of a training: where it began, who taught, how long it took, and the command that does it again."""
    epochs, hours = plain(stage.get("epochs")), plain(stage.get("hours"))
    took = [f"{epochs} epochs" if epochs else "", f"{hours} hours" if hours else ""]
    return {
        "Start": plain(stage.get("start")),
        "Teacher": plain(stage.get("teacher")),
        "Altered by": plain(stage.get("augmentation")),
        "Took": ", ".join(part for part in took if part),
        "Remark": plain(stage.get("note")),
        "Command": plain(stage.get("command")),
    }


def familiar(sidecar: Sidecar, model: Model) -> list[str]:
    """How it is told that a photo is unlike those the model knows, and how often that works; nothing if it is not."""
    known = model.familiarity
    if known is None:
        return []
    said = [
        f"A photo whose {known.score.replace('-', ' ')} is under {known.threshold:.3g} is called unlike those it "
        f"knows; {100 * known.kept:.0f} % of {known.data} reach that."
    ]
    other = sidecar.familiarity.get("elsewhere")
    if isinstance(other, Mapping):
        photos, flagged = other.get("photos"), other.get("flagged")
        if isinstance(photos, int) and isinstance(flagged, (int, float)):
            which = f" ({plain(other.get('data'))})" if other.get("data") else ""
            said.append(f"Of {photos:,} photos of other things{which}, {100 * flagged:.0f} % are flagged.")
    return said


def faithful(sidecar: Sidecar) -> str:
    """What came of the deletion test of its maps, where one was made."""
    tested = sidecar.faithfulness
    found, blind, photos = (tested.get(key) for key in ("auc", "centred_gaussian", "photos"))
    if not isinstance(found, float) or not isinstance(blind, float):
        return ""
    sooner = "sooner" if found < blind else "no sooner"
    return (
        f"Taking pixels away where {plain(tested.get('method'))} is warmest lowers the answer {sooner} than taking "
        f"them from the middle outwards: area under the curve {found:.3f} against {blind:.3f}, "
        f"mean of {plain(photos)} photos."
    )


def card(name: str, lead: str, figures: Mapping[str, str], groups: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A name, a sentence, figures by what they count, and groups; empty ones are left out."""
    return {
        "name": name,
        "lead": lead,
        "figures": [{"value": value, "label": label} for label, value in figures.items() if value],
        "groups": [group for group in groups if group["rows"]],
    }


def group(heading: str, rows: Mapping[str, Said], code: Sequence[str] = ()) -> dict[str, Any]:
    """Rows by name under a heading; those named in `code` are commands to copy."""
    lines = {name: [said] if isinstance(said, str) else list(said or ()) for name, said in rows.items()}
    kept = {name: [line for line in said if line] for name, said in lines.items()}
    return {
        "heading": heading,
        "rows": [{"name": name, "lines": said, "code": name in code} for name, said in kept.items() if said],
    }


def plain(value: object) -> str:
    """What a sidecar says under one name, as a line of text; nothing for what is no text and no number."""
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(plain, value)))
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def millions(count: int) -> str:
    """A number of parameters as a person reads it.

    >>> millions(11_181_642), millions(86_567_656), millions(420)
    ('11.2 M', '86.6 M', '420')
    """
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count:,}"
