from __future__ import annotations

import json

from steering.fit import Candidate, Damage, DataSummary, Interval, Receipt, select_by_separation

DATA = DataSummary(
    sha256={"positive": "a", "negative": "b"},
    token="last",
    num_train={"positive": 3, "negative": 4},
    num_validation={"positive": 1, "negative": 1},
)
CANDIDATES = (Candidate(1, -1, auc=0.7), Candidate(2, -1, {"rank": 2}, auc=0.9, kl=0.0))


def test_a_receipt_survives_json_and_loses_nothing() -> None:
    receipt = Receipt(
        method="mean_difference",
        options={"rank": 2},
        data=DATA,
        selection=select_by_separation(CANDIDATES),
        candidates=CANDIDATES,
        separation={"auc": Interval(0.9, 0.8, 1.0, 0.95, 200)},
        dose_resid_norms={2: 0.25},
        damage=Damage(kl=0.01, operation="add", strength=1.0),
        notes=("few",),
    )
    document = json.loads(json.dumps(receipt.to_dict(), allow_nan=False))
    assert set(document) == set(Receipt.__dataclass_fields__)
    assert document["data"]["num_train"] == {"positive": 3, "negative": 4}
    chosen = document["selection"]["chosen"]
    assert chosen["layer"] == 2
    assert set(chosen) == set(Candidate.__dataclass_fields__)
    assert chosen["cosine_stability"] is chosen["target_accuracy"] is None
    assert document["selection"]["rejected"][0]["layer"] == 1
    assert document["candidates"][0] == {"layer": 1, "position": -1, "auc": 0.7}
    assert document["candidates"][1]["kl"] == 0.0
    assert document["separation"]["auc"]["high"] == 1.0
    assert document["dose_resid_norms"] == {"2": 0.25}
    assert document["damage"]["kl"] == 0.01
    assert document["notes"] == ["few"]


def test_what_was_not_measured_is_null() -> None:
    document = Receipt("mean_difference", {}, DATA).to_dict()
    assert document["damage"] is None
    assert document["selection"] is None
    assert document["candidates"] == []
