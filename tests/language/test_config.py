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


def test_null_passes_where_it_has_a_meaning():
    config = fields(window=None, cap=None, width=4, scale=0.5)
    assert config.integer_or_none("window", 7) is None
    assert config.number_or_none("cap", 7.0) is None
    assert config.integer_or_none("width", None) == 4
    assert config.number_or_none("scale", None) == 0.5
    assert config.integer_or_none("absent", 7) == 7
    assert config.number_or_none("absent", None) is None
    config.finish()
    with pytest.raises(UnsupportedModelError):
        fields(window=0).integer_or_none("window", None)
    with pytest.raises(UnsupportedModelError):
        fields(cap="50").number_or_none("cap", None)


@pytest.mark.parametrize("value", [0, 1, None, "true", []])
def test_flags_are_true_or_false(value):
    assert fields(bias=True).flag("bias", False) is True
    assert fields().flag("bias", True) is True
    with pytest.raises(UnsupportedModelError) as caught:
        fields(bias=value).flag("bias", False)
    assert caught.value.field == "bias"


@pytest.mark.parametrize("value", [["a"], ["a", "b", "a"], ["a", "c"], ["a", None], "ab", {"0": "a", "1": "b"}])
def test_lists_of_words_have_their_length_and_their_vocabulary(value):
    assert fields(kinds=["a", "b"]).words("kinds", {"a", "b"}, length=2) == ("a", "b")
    assert fields(kinds=None).words("kinds", {"a"}, length=2) is None
    with pytest.raises(UnsupportedModelError) as caught:
        fields(kinds=value).words("kinds", {"a", "b"}, length=2)
    assert caught.value.field == "kinds"


def test_sections_are_read_like_the_whole():
    config = fields(rope={"theta": 5, "other": 1}, none=None)
    assert config.section("none") is None
    assert config.section("absent") is None
    section = config.section("rope")
    assert section.number("theta", 1.0) == 5.0
    config.finish()
    with pytest.raises(UnsupportedModelError, match="not understood") as caught:
        section.finish()
    assert caught.value.field == "rope.other"
    with pytest.raises(UnsupportedModelError) as caught:
        fields(rope="linear").section("rope")
    assert caught.value.field == "rope"


def test_a_refusal_shows_the_value():
    assert "8 would not" in str(fields(heads=8).refusal("heads", "it does not divide the width"))


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


@pytest.mark.parametrize("value", [["a", "b"], "b|a", "A | B", ["b", "a"]])
def test_sets_of_words_have_no_order(value):
    assert fields(kinds=value).word_set("kinds", "", ("a", "b", "c")) == {"a", "b"}


def test_sets_of_words_may_be_missing_or_empty():
    assert fields().word_set("kinds", "a|b", ("a", "b")) == {"a", "b"}
    assert fields(kinds=None).word_set("kinds", "", ("a",)) == set()
    assert fields(kinds=[]).word_set("kinds", "a", ("a",)) == set()


@pytest.mark.parametrize("value", [["a", "a"], "a|c", 3, [3], {"a": 1}])
def test_sets_of_words_hold_nothing_else(value):
    with pytest.raises(UnsupportedModelError) as caught:
        fields(kinds=value).word_set("kinds", "", ("a", "b"))
    assert caught.value.field == "kinds"
