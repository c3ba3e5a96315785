"""Write `checkpoints/README.md`, the model cards, from the sidecars: `python -m checkpoints.training.model_cards`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

CHECKPOINTS = Path(__file__).resolve().parent.parent  # the folder of the bundled networks
HEAD = """\
# The bundled checkpoints

Small networks that travel with vizlib, so that everything works without a network. They know ten things, the
classes of Imagenette: {labels}.
Shown anything else, they still name one of the ten; do not use them to decide anything.

This page is written by `python -m checkpoints.training.model_cards` from the sidecars beside it. Weights are
trained from random initialisation here and are under the licence of this project.
"""
CARD = """
## {name}

| | |
|---|---|
| architecture | timm `{architecture}` {arguments} |
| accuracy | **{top1} %** top-1 on {photos:,} {data} (95 % interval {low} to {high} %) |
| measured by | `python -m checkpoints.training.train --evaluate {name}` |
| input | {channel_order}, {size} px, {interpolation}, crop {crop_pct}, mean {mean}, standard deviation {std} |
| size | {megabytes:.1f} MB, float16, sha256 `{sha256}` |
| trained on | {trained_on} |
| licence of the data | {data_licence} |
| machine | {machine} |
| history | [{name}.csv]({name}.csv) |
"""
STAGE = """
**{title}**, from {start}{teacher}: {epochs} epochs, {minutes} min{note}

```bash
{command}
```

Augmentation: {augmentation}.
"""
FAMILIARITY = """
**Photos of other things.** A photo whose {score} is under {threshold:.2f} gets a note that it is unlike those the
network knows; {coverage:.0f} % of {data} reach it.{elsewhere}
"""
FAITHFULNESS = """
**Do its maps point at what it uses?** {metric}, mean over {photos} validation photos, lower is better: `{method}`
**{auc:.3f}**, a Gaussian in the middle of the photo {centred_gaussian:.3f} (difference {gain:.3f} ±
{gain_interval95:.3f}; the map is better on {better_on:.0f} % of the photos).
"""
COMPARISON = """
## {title}

{text}

| start | validation top-1 after each epoch, % | command |
|---|---|---|
{rows}

{schedule} {licence}
"""


def render_cards() -> str:
    """The page, from what the sidecars say now."""
    sidecars = {path.stem: json.loads(path.read_text()) for path in sorted(CHECKPOINTS.glob("*.json"))}
    first = next(iter(sidecars.values()))
    text = HEAD.format(labels=", ".join(first["labels"]))
    return text + "".join(render_card(name, sidecar) for name, sidecar in sidecars.items()) + render_comparison()


def render_card(name: str, sidecar: dict) -> str:
    """One network's part of the page."""
    origin, shown, found = sidecar["origin"], sidecar["preprocessing"], sidecar["accuracy"]
    low, high = found["interval95"]
    text = CARD.format(
        name=name,
        architecture=sidecar["architecture"],
        arguments=", ".join(f"`{key}={value}`" for key, value in sidecar["arguments"].items()),
        size=shown["input_size"][1],
        megabytes=(CHECKPOINTS / f"{name}.safetensors").stat().st_size / 1e6,
        sha256=sidecar["sha256"],
        trained_on=origin["data"],
        low=low,
        high=high,
        **{key: shown[key] for key in ("interpolation", "crop_pct", "mean", "std")},
        **{key: found[key] for key in ("top1", "photos", "data")},
        **{key: origin[key] for key in ("channel_order", "data_licence", "machine")},
    )
    for number, stage in enumerate(origin["stages"], 1):
        told = {
            "title": f"Training, stage {number}" if len(origin["stages"]) > 1 else "Training",
            "teacher": f", learning also from the {stage['teacher']}" if stage["teacher"] else "",
            "augmentation": ", ".join(stage["augmentation"]),
            "note": f" ({stage['note']})" if stage["note"] else "",
        }
        text += STAGE.format(**{**stage, **told})
    if known := sidecar.get("ood"):
        other = known.get("elsewhere")
        said = f" Of {other['photos']} {other['data']}, {100 * other['flagged']:.0f} % get the note." if other else ""
        text += FAMILIARITY.format(**{**known, "coverage": 100 * known["coverage"], "elsewhere": said})
    if tested := sidecar.get("faithfulness"):
        metric = tested["metric"][0].upper() + tested["metric"][1:]
        text += FAITHFULNESS.format(**{**tested, "metric": metric, "better_on": 100 * tested["better_on"]})
    if sidecar.get("weaknesses"):
        text += "\n**Known weaknesses**\n\n" + "".join(f"- {line}\n" for line in sidecar["weaknesses"])
    return text


def render_comparison() -> str:
    """The three starts of the classic comparison; nothing before they were run."""
    file = CHECKPOINTS / "comparison" / "comparison.json"
    if not file.exists():
        return ""
    told = json.loads(file.read_text())
    rows = []
    for name, one in told["starts"].items():
        with (CHECKPOINTS / "comparison" / f"{name}.csv").open(newline="") as table:
            curve = ", ".join(f"{float(row['val_top1']):.1f}" for row in csv.DictReader(table))
        rows.append(f"| {one['label']} | {curve} | `{one['command']}` |")
    return COMPARISON.format(**{**told, "rows": "\n".join(rows)})


if __name__ == "__main__":
    (CHECKPOINTS / "README.md").write_text(render_cards())
