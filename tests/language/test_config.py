import json

import pytest

from jaxgkd.errors import CheckpointError, UnsupportedModelError
from jaxgkd.language.config import ConfigFields, read_fields, read_json


def fields(**values):
    return ConfigFields(values, "config.json")


def test_fields_are_read_once_and_defaults_fill_gaps():
    config = fields(layers=3, epsilon=1e-5, act="gelu", whole=2)
    assert config.integer("layers", 7) == 3
    assert config.integer("heads", 7) == 7
    assert config.number("epsilon", 1.0) == 1e-5
    assert config.number("whole", 1.0) == 2.0
    assert config.choice("act", "relu", {"gelu", "relu"}) == "gelu"
    assert config.choice("other_act", "relu", {"gelu", "relu"}) == "relu"
    config.finish()


def test_a_field_nobody_read_is_named():
    config = fields(layers=3, window=4)
    config.integer("layers", 1)
    with pytest.raises(UnsupportedModelError, match="not understood") as caught:
        config.finish()
    assert caught.value.field == "window"


def test_harmless_fields_pass_whatever_they_hold():
    config = fields(use_cache=True, id2label={"0": "a"})
    config.harmless({"use_cache", "id2label", "absent"})
    config.finish()


@pytest.mark.parametrize("value", [None, False])
def test_neutral_fields_pass_at_their_neutral_value(value):
    config = fields(is_decoder=value)
    config.neutral({"is_decoder": (False,), "absent": (0,)})
    config.finish()


@pytest.mark.parametrize("value", [True, 0, "false", {}, 1])
def test_neutral_fields_are_refused_at_any_other_value(value):
    with pytest.raises(UnsupportedModelError) as caught:
        fields(is_decoder=value).neutral({"is_decoder": (False,)})
    assert caught.value.field == "is_decoder"


@pytest.mark.parametrize("value", [True, 2.0, "2", None, 0, -1])
def test_integers_are_whole_numbers(value):
    with pytest.raises(UnsupportedModelError) as caught:
        fields(layers=value).integer("layers", 1)
    assert caught.value.field == "layers"


@pytest.mark.parametrize("value", [True, "1e-5", None, 0.0, -1e-5, float("nan")])
def test_numbers_are_above_zero(value):
    with pytest.raises(UnsupportedModelError) as caught:
        fields(epsilon=value).number("epsilon", 1.0)
    assert caught.value.field == "epsilon"


@pytest.mark.parametrize("value", ["gelu_10", None, 3, ["gelu"]])
def test_choices_name_what_is_supported(value):
    with pytest.raises(UnsupportedModelError, match="gelu, relu") as caught:
        fields(act=value).choice("act", "gelu", {"relu", "gelu"})
    assert caught.value.field == "act"


def test_long_values_are_shortened_in_the_message():
    with pytest.raises(UnsupportedModelError) as caught:
        fields(act="x" * 500).choice("act", "gelu", {"gelu"})
    assert len(str(caught.value)) < 300


def test_the_model_type_is_required(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(UnsupportedModelError, match="model_type"):
        read_fields(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\ufeff", ""])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: the file is missing"):
        read_json(tmp_path / "config.json")
