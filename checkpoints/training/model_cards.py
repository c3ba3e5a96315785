"""Write the model cards, `checkpoints/README.md`, from the sidecars: `python -m checkpoints.training.model_cards`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from checkpoints.training.imagenette import LABELS

CHECKPOINTS = Path(__file__).resolve().parent.parent  # the folder of the bundled networks
HEAD = """\
# The bundled checkpoints

Small networks that are distributed with vizlib, so that everything works offline. Those named `imagenette` have ten
classes: {labels}.
A network predicts one of its classes for any photo, also for one that shows none of them; do not base decisions on it.

This page is written by `python -m checkpoints.training.model_cards` from the sidecars in this folder. The weights were
trained from random initialisation and are under the licence of this project.
"""
CARD = """
## {name}

| | |
|---|---|
| architecture | {architecture} |
| accuracy | **{top1} %** top-1 on {photos:,} {data} (95 % interval {low} to {high} %) |
| measured by | `{command}` |
| input | {channel_order}, {size} px, {interpolation}, crop {crop_pct}, mean {mean}, standard deviation {std} |
| size | {megabytes:.1f} MB, float16, sha256 `{sha256}` |
| trained on | {trained_on} |
| licence of the data | {data_licence} |
| machine | {machine} |
| history | [{name}.csv]({name}.csv) |
"""
TOP5 = """
On the same photos its class is among the five likeliest of **{top5} %** (95 % interval {low} to {high} %)"""
TEACHER = """; of its teacher the figures are {top1} and {top5} %.
"""
HELD_OUT = """
A scene is right if the best of all prompts is in it. Of scenes whose digits are all in combinations of colour and digit
that the training never showed or named it is **{held_out} %** (95 % interval {low} to {high} %). What its maps show is
in [the rankings](../docs/reference/rankings.md): on such scenes it is known where each digit lies.
"""
CALIBRATION = """
**Calibration.** The expected calibration error (15 bins) on {photos} photos is {error}; with the logits divided by
{temperature}, which fits as many others best, it is {error_with_temperature}.
"""
STAGE = """
**{title}**, from {start}{teacher}: {epochs} epochs, {minutes} min{note}

```bash
{command}
```

Augmentation: {augmentation}.
"""
OOD = """
**Out-of-distribution photos.** A photo whose {score} is below {threshold:.2f} gets a note that it is unlike the
training photos; {coverage:.0f} % of {data} reach the threshold.{other_photos_text}
"""
FAITHFULNESS = """
**Faithfulness of its maps.** {metric}, mean over {photos} validation photos, lower is better: `{method}`
**{auc:.3f}**, a centred Gaussian {centred_gaussian:.3f} (difference {gain:.3f} ±
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
    """Return the text of the page."""
    sidecars = {path.stem: json.loads(path.read_text()) for path in sorted(CHECKPOINTS.glob("*.json"))}
    text = HEAD.format(labels=", ".join(LABELS.values()))
    return text + "".join(render_card(name, sidecar) for name, sidecar in sidecars.items()) + render_comparison()


def render_card(name: str, sidecar: dict) -> str:
    """Return the model card of one network.

    Args:
        name: Its name.
        sidecar: Content of its sidecar.
    """
    origin, preprocessing, accuracy = sidecar["origin"], sidecar["preprocessing"], sidecar["accuracy"]
    low, high = accuracy["interval95"]
    text = CARD.format(
        name=name,
        architecture=describe_architecture(sidecar),
        size=preprocessing["input_size"][1],
        megabytes=(CHECKPOINTS / f"{name}.safetensors").stat().st_size / 1e6,
        sha256=sidecar["sha256"],
        trained_on=origin["data"],
        command=accuracy.get("command", f"python -m checkpoints.training.train --evaluate {name}"),
        low=low,
        high=high,
        **{key: preprocessing[key] for key in ("interpolation", "crop_pct", "mean", "std")},
        **{key: accuracy[key] for key in ("top1", "photos", "data")},
        **{key: origin[key] for key in ("channel_order", "data_licence", "machine")},
    )
    if teacher := accuracy.get("teacher"):
        text += TOP5.format(
            **accuracy | {"low": accuracy["top5_interval95"][0], "high": accuracy["top5_interval95"][1]}
        )
        text += TEACHER.format(**teacher)
    if "held_out" in accuracy:
        held_out_low, held_out_high = accuracy["held_out_interval95"]
        text += HELD_OUT.format(held_out=accuracy["held_out"], low=held_out_low, high=held_out_high)
    if calibration := sidecar.get("calibration"):
        text += CALIBRATION.format(**calibration)
    for number, stage in enumerate(origin["stages"], 1):
        texts = {
            "title": f"Training, stage {number}" if len(origin["stages"]) > 1 else "Training",
            "teacher": f", learning also from the {stage['teacher']}" if stage["teacher"] else "",
            "augmentation": ", ".join(stage["augmentation"]),
            "note": f" ({stage['note']})" if stage["note"] else "",
        }
        text += STAGE.format(**{**stage, **texts})
    if ood := sidecar.get("ood"):
        other = ood.get("other_photos")
        other_text = (
            f" Of {other['photos']} {other['data']}, {100 * other['flagged']:.0f} % get the note." if other else ""
        )
        text += OOD.format(**{**ood, "coverage": 100 * ood["coverage"], "other_photos_text": other_text})
    if faithfulness := sidecar.get("faithfulness"):
        metric = faithfulness["metric"][0].upper() + faithfulness["metric"][1:]
        facts = {**faithfulness, "metric": metric, "better_on": 100 * faithfulness["better_on"]}
        text += FAITHFULNESS.format(**facts)
    if sidecar.get("weaknesses"):
        text += "\n**Known weaknesses**\n\n" + "".join(f"- {line}\n" for line in sidecar["weaknesses"])
    return text


def describe_architecture(sidecar: dict) -> str:
    """Return the architecture of a network: the name in timm and its arguments, or that of a CLIP in open_clip."""
    if clip := sidecar.get("clip"):
        vision, text = clip["model_cfg"]["vision_cfg"], clip["model_cfg"]["text_cfg"]
        return (
            f"open_clip `CLIP`: ViT of {vision['layers']} blocks of width {vision['width']}, patches of "
            f"{vision['patch_size']} px; text transformer of {text['layers']} blocks of width {text['width']}, "
            f"{len(clip['words'])} words"
        )
    arguments = ", ".join(f"`{key}={value}`" for key, value in sidecar["arguments"].items())
    return f"timm `{sidecar['architecture']}` {arguments}".rstrip()


def render_comparison() -> str:
    """Return the section about the runs of `resnet18-classic`; empty if there are none."""
    file = CHECKPOINTS / "comparison" / "comparison.json"
    if not file.exists():
        return ""
    comparison = json.loads(file.read_text())
    rows = []
    for name, start in comparison["starts"].items():
        with (CHECKPOINTS / "comparison" / f"{name}.csv").open(newline="") as table:
            curve = ", ".join(f"{float(row['val_top1']):.1f}" for row in csv.DictReader(table))
        rows.append(f"| {start['label']} | {curve} | `{start['command']}` |")
    return COMPARISON.format(**{**comparison, "rows": "\n".join(rows)})


if __name__ == "__main__":
    (CHECKPOINTS / "README.md").write_text(render_cards())
