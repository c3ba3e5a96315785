"""The out-of-distribution score and its note, against the formulas of the papers."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

import vizlib
from vizlib import ModelError
from vizlib.models.loading import checkpoint_files
from vizlib.models.ood import OOD_SCORES, OodScore

SIDECAR = {"score": "energy", "threshold": 7.5, "coverage": 0.95, "data": "Imagenette's validation photos"}


@pytest.fixture(scope="module")
def model():
    return vizlib.load("resnet18-imagenette")


def random_logits(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(0)) * 6


def score_by_hand(score: str, row: list[float]) -> float:
    """Return the score by the paper's formula in double precision."""
    if score == "max-logit":
        return sorted(row)[-1]
    total = math.fsum(math.exp(logit) for logit in row)
    if score == "negative-entropy":
        return math.fsum(math.exp(logit) / total * (logit - math.log(total)) for logit in row)
    return math.log(total) if score == "energy" else math.exp(sorted(row)[-1]) / total


@pytest.mark.parametrize("score", OOD_SCORES)
def test_compute_equals_the_formula_of_the_paper(score):
    scores = OodScore(score, 0.0, 0.95, "photos").compute(random_logits())
    assert scores.shape == (5,)
    assert scores.tolist() == pytest.approx(
        [score_by_hand(score, row) for row in random_logits().double().tolist()], rel=1e-6
    )


def test_compute_energy_of_huge_logits_does_not_overflow():
    assert OodScore("energy", 0.0, 0.95, "photos").compute(torch.tensor([1e4, 1e4])).item() == pytest.approx(
        1e4 + math.log(2)
    )


@pytest.mark.parametrize("score", OOD_SCORES)
def test_ood_note_is_given_exactly_below_the_threshold(score):
    logits = random_logits(1)[0]
    value = float(OodScore(score, 0.0, 0.95, "photos").compute(logits))
    for threshold, flagged in ((value, False), (math.nextafter(value, -9), False), (math.nextafter(value, 99), True)):
        assert (OodScore(score, threshold, 0.95, "photos").ood_note(logits) is not None) == flagged


def test_ood_note_states_score_threshold_and_coverage():
    logits = torch.tensor([2.0, 2.0])
    assert OodScore("max-logit", 7.5, 0.95, "Imagenette's validation photos").ood_note(logits) == (
        "This photo is unlike the photos that the model was calibrated on: its max logit is 2, and 95 % of "
        "Imagenette's validation photos reach 7.5. It may show none of the 2 classes."
    )


def test_ood_note_is_none_for_nan_logits():
    assert OodScore(**SIDECAR).ood_note(torch.full((3,), torch.nan)) is None


def test_from_sidecar_reads_what_asdict_writes():
    ood_score = OodScore.from_sidecar(json.loads(json.dumps({**SIDECAR, "auroc": 0.98})))
    assert ood_score == OodScore(**SIDECAR)
    assert ood_score is not None
    assert dataclasses.asdict(ood_score) == SIDECAR
    assert OodScore.from_sidecar({}) is None


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("score", "entropy", "the score 'entropy', expected one of energy, max-logit, max-probability, negative"),
        ("score", None, "the score None, expected one of"),
        ("score", ["energy"], r"the score \['energy'\], expected one of"),
        ("threshold", "7.5", "a number as threshold"),
        ("threshold", None, "a number as threshold"),
        ("threshold", True, "a number as threshold"),
        ("threshold", math.nan, "a number as threshold"),
        ("coverage", [0.95], "from 0 to 1 as coverage"),
        ("coverage", 95, "from 0 to 1 as coverage"),
        ("coverage", -math.inf, "from 0 to 1 as coverage"),
        ("data", None, "needs data, the name of the photos"),
        ("data", 3925, "needs data, the name of the photos"),
    ],
)
def test_from_sidecar_states_what_is_expected_of_a_malformed_field(field, value, expected):
    with pytest.raises(ModelError, match=f"the sidecar's ood entry .*{expected}"):
        OodScore.from_sidecar({**SIDECAR, field: value})


def test_load_reads_the_ood_score_of_the_sidecar(tmp_path):
    path = checkpoint_files.list_bundled()["resnet18-imagenette"]
    (tmp_path / "my.safetensors").symlink_to(path)
    sidecar = {**json.loads(path.with_suffix(".json").read_text()), "ood": SIDECAR}
    (tmp_path / "my.json").write_text(json.dumps(sidecar))
    assert vizlib.load(tmp_path / "my.safetensors").ood_score == OodScore(**SIDECAR)
    (tmp_path / "my.json").write_text(json.dumps({**sidecar, "ood": {"score": "energy"}}))
    with pytest.raises(ModelError, match="the sidecar's ood entry needs a number as threshold"):
        vizlib.load(tmp_path / "my.safetensors")


@pytest.mark.parametrize(
    ("score", "kind", "applies"),
    [("energy", "sigmoid", False), ("max-logit", "sigmoid", True), ("max-logit", "values", False)],
)
def test_a_score_that_the_outputs_do_not_have_is_a_note_and_no_score(score, kind, applies, tmp_path):
    path = checkpoint_files.list_bundled()["resnet18-imagenette"]
    (tmp_path / "my.safetensors").symlink_to(path)
    sidecar = {**json.loads(path.with_suffix(".json").read_text()), "ood": {**SIDECAR, "score": score}}
    (tmp_path / "my.json").write_text(json.dumps({**sidecar, "output_kind": kind}))
    model = vizlib.load(tmp_path / "my.safetensors")
    assert (model.ood_score is not None) == applies
    codes = [getattr(note, "code", None) for note in model.notes]
    assert codes == ([] if applies else ["model.ood-not-applicable"])


def test_run_and_explain_have_the_ood_note_once(model, cheetah):
    logits = model.logits(model.tensor(cheetah))
    energy = logits.logsumexp(-1).item()
    in_distribution = dataclasses.replace(model, ood_score=OodScore("energy", energy - 0.01, 0.95, "photos"))
    flagged = dataclasses.replace(model, ood_score=OodScore("energy", energy + 0.01, 0.95, "photos"))
    note = flagged.ood_note(logits)
    assert note.startswith("This photo is unlike the photos that the model was calibrated on: its energy is ")
    assert flagged.run(cheetah).notes.count(note) == 1
    assert vizlib.explain(flagged, cheetah, "grad-cam").notes.count(note) == 1
    assert in_distribution.ood_note(logits) is None
    assert not any(text.startswith("This photo is unlike") for text in in_distribution.run(cheetah).notes)
    assert dataclasses.replace(model, ood_score=None).ood_note(logits) is None
