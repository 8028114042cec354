import json

import pytest
from runs import draft_plan, run_config

from pipelines.runs.run_config import RunConfig, differences
from schemas.versions import SchemaError


def test_a_config_reads_back_as_it_was(tmp_path):
    config = run_config(draft_plan(tmp_path / "plan"))
    assert RunConfig.from_json(config.to_json(), where="here") == config


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", json.dumps({"name": "tiny", "image_size_px": 32}), '{"schema": "run-config/1"}'],
)
def test_anything_else_is_refused_with_its_place(text):
    with pytest.raises(SchemaError, match=r"/run/config\.json"):
        RunConfig.from_json(text, where="/run/config.json")


def test_differences_name_each_key_with_both_values():
    there = {"batch_size": 16, "device": "cpu", "only_there": 1}
    now = {"batch_size": 32, "device": "cpu", "model_sha256": "ab" * 32}
    assert differences(there, now) == [
        "batch_size: 16 there, 32 now",
        "model_sha256: None there, abababababab… now",
        "only_there: 1 there, None now",
    ]
