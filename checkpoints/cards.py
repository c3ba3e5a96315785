"""Write `checkpoints/README.md`, the model cards, from the sidecars: `python checkpoints/cards.py`."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEAD = """\
# The bundled checkpoints

Two small networks that travel with vizlib, so that everything works without a network. They know ten things, the
classes of Imagenette: {labels}.
Shown anything else, they still name one of the ten; do not use them to decide anything.

This page is written by `python checkpoints/cards.py` from the sidecars beside it.
"""
CARD = """
## {name}

| | |
|---|---|
| architecture | timm `{architecture}` {arguments} |
| accuracy | **{top1} %** top-1 on {photos:,} {data} (95 % interval {low} to {high} %) |
| measured by | `python checkpoints/train.py {name} --evaluate` |
| input | {size} px, {interpolation}, crop {crop_pct}, RGB, mean {mean}, standard deviation {std} |
| size | {megabytes:.1f} MB, float16, sha256 `{sha256}` |
| trained on | {trained_on} |
| licence of the data | {data_licence} |
| start | {start}{teacher} |
| augmentation | {augmentation} |
| training | `{command}`, {epochs} epochs, {hours} h on {machine}{note} |
| history | [{name}.csv]({name}.csv) |
"""


def cards() -> str:
    """The page, from what the sidecars say now."""
    sidecars = {path.stem: json.loads(path.read_text()) for path in sorted(HERE.glob("*.json"))}
    first = next(iter(sidecars.values()))
    text = HEAD.format(labels=", ".join(first["labels"]))
    for name, sidecar in sidecars.items():
        origin, shown, measured = sidecar["origin"], sidecar["preprocessing"], sidecar["accuracy"]
        low, high = measured["interval95"]
        text += CARD.format(
            name=name,
            architecture=sidecar["architecture"],
            arguments=", ".join(f"`{key}={value}`" for key, value in sidecar["arguments"].items()),
            size=shown["input_size"][1],
            megabytes=(HERE / f"{name}.safetensors").stat().st_size / 1e6,
            sha256=sidecar["sha256"],
            trained_on=origin["data"],
            note=f" ({origin['note']})" if origin["note"] else "",
            teacher=f", learning also from the {origin['teacher']}" if origin["teacher"] else "",
            low=low,
            high=high,
            **{key: shown[key] for key in ("interpolation", "crop_pct", "mean", "std")},
            **{key: measured[key] for key in ("top1", "photos", "data")},
            **{
                key: origin[key]
                for key in ("data_licence", "start", "augmentation", "command", "epochs", "hours", "machine")
            },
        )
    return text


if __name__ == "__main__":
    (HERE / "README.md").write_text(cards())
