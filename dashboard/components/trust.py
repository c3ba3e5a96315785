"""Three bars that say how far a map can be trusted, which fill while it is measured, with a button to start or stop.

The button fires `submit` to start and `stop` to stop.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from dashboard.components.help_link import build_page_link
from dashboard.i18n.translate import translate, translate_method_description, translate_note
from vizlib import Trust
from vizlib.attribution.measurement import TRUST_PARTS
from vizlib.attribution.methods.registry import METHODS

WAITING, RUNNING, DONE = "waiting", "running", "done"


_turns = itertools.count(1)


def build_waiting_trust(*, start_now: bool) -> dict[str, Any]:
    """Return the value of the bars of a map before the measurement.

    Args:
        start_now: Whether it starts without a click.
    """
    return {"state": WAITING, "turn": next(_turns), "parts": _list_parts(Trust()), "begin": start_now, **_list_texts()}


def build_measured_trust(trust: Trust, method: str) -> dict[str, Any]:
    """Return the value of the bars of a map that was measured before.

    Args:
        trust: What was measured.
        method: Name of the method of the map.
    """
    return {**build_trust_step(trust, method, 1.0, next(_turns)), "step": False}


def build_trust_step(trust: Trust, method: str, fraction: float, turn: int) -> dict[str, Any]:
    """Return the value of the bars after some of the passes.

    Args:
        trust: What is measured so far.
        method: Name of the method of the map.
        fraction: How much of the work is done, 0 to 1.
        turn: That of the bars whose measurement this is: another map may be shown meanwhile, which ignores it.
    """
    notes = [translate_note(note) for note in trust.notes]
    state = DONE if fraction >= 1 else RUNNING
    return {
        "state": state,
        "turn": turn,
        "step": True,
        "parts": _list_parts(trust),
        "notes": notes,
        "reasons": list_doubts(trust, method) if state == DONE else [],
        **_list_texts(),
    }


def list_doubts(trust: Trust, method: str) -> list[str]:
    """Return what the measurements of a map leave open, one text each: why one should not trust it all the same.

    Args:
        trust: What was measured.
        method: Name of the method of the map.
    """
    doubts = [translate_method_description(METHODS[method])[1]]
    if trust.faithfulness is not None:
        deletion, insertion = trust.faithfulness.measurements
        facts = {
            "deletion": f"{deletion.references['centred-gaussian']:.2f}",
            "insertion": f"{insertion.references['centred-gaussian']:.2f}",
            "own_deletion": f"{deletion.value:.2f}",
            "own_insertion": f"{insertion.value:.2f}",
        }
        doubts.append(translate("trust.doubt.centre", **facts))
    return [*doubts, *(translate(f"trust.doubt.{part}") for part in trust.parts)]


def build_trust_scores(trust: Trust | None) -> dict[str, dict[str, Any]]:
    """Return share and text of each measured part by its name, for the thumbnail of a method.

    Args:
        trust: What was measured; `None` for nothing.
    """
    parts = {} if trust is None else trust.parts
    return {
        name: {"share": part.share, "text": f"{100 * part.share:.0f} %"}
        for name, part in parts.items()
        if math.isfinite(part.share)
    }


def read_turn(value: Any) -> int:
    """Return the turn of the bars that a measurement is started from.

    Args:
        value: Value of the bars.
    """
    turn = value.get("turn") if isinstance(value, dict) else None
    return turn if isinstance(turn, int) else 0


def _list_parts(trust: Trust) -> list[dict[str, Any]]:
    """Return the bars: a name, how full it is or that it is not measured, and the sentence."""
    parts = []
    for name in TRUST_PARTS:
        part = trust.parts.get(name)
        share = None if part is None or not math.isfinite(part.share) else part.share
        parts.append(
            {
                "name": translate(f"trust.{name}"),
                "share": share,
                "text": "" if share is None else f"{100 * share:.0f} %",
                "sentence": "" if part is None else translate_note(part.sentence),
            }
        )
    return parts


def _list_texts() -> dict[str, Any]:
    """Return the texts of the bars that do not depend on the map."""
    return {
        "heading": translate("trust.heading"),
        "caveat": translate("trust.caveat"),
        "why": translate("trust.why"),
        "help": build_page_link("trust"),
        "help_label": translate("common.help", name=translate("trust.heading")),
    }
