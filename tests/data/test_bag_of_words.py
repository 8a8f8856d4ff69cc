import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.data.bag_of_words import Vocabulary, fit
from jaxgkd.errors import DataError

TEXTS = ["The cat sat", "the dog sat, the dog ran", "a Cat_1 ran", ""]


def test_a_worked_example():
    vocabulary = fit(TEXTS)
    assert vocabulary.terms == ("ran", "sat", "the")
    np.testing.assert_allclose(vocabulary.idf, [math.log(5 / 3) + 1] * 3)
    features = vocabulary.transform(TEXTS)
    assert features.dtype == np.float32 and features.shape == (4, 3)
    expected = np.array([[0, 1, 1], [1, 1, 2], [1, 0, 0], [0, 0, 0]], np.float64)
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(features.toarray(), expected, rtol=1e-6)


def test_limits():
    assert fit(TEXTS, min_documents=1).terms == ("cat", "cat_1", "dog", "ran", "sat", "the")
    assert fit(TEXTS, min_documents=1, max_document_share=0.25).terms == ("cat", "cat_1", "dog")
    # "the" occurs three times, then "dog", "ran" and "sat" twice each: the alphabet decides.
    assert fit(TEXTS, min_documents=1, max_features=3).terms == ("dog", "ran", "the")
    with pytest.raises(DataError, match="no word is in at least 4"):
        fit(TEXTS, min_documents=4)
    with pytest.raises(DataError, match="no word"):
        fit([], min_documents=1)


def test_new_texts_and_saving(tmp_path):
    vocabulary = fit([*TEXTS, "naïve ran", "naïve"])
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert loaded == vocabulary
    features = loaded.transform(["unknown words", "naïve NAÏVE"])
    assert features.toarray().tolist() == [[0] * 4, [1, 0, 0, 0]]
    assert loaded.transform([]).shape == (0, 4)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"terms": ["a"], "idf": []}', '{"terms": [], "idf": []}', '{"terms": ["a"], "idf": [NaN]}'],
)
def test_damaged_vocabularies(tmp_path, content):
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(DataError, match=r"v\.json: is (not a saved|a damaged) vocabulary"):
        Vocabulary.load(tmp_path / "v.json")
    with pytest.raises(DataError, match="cannot be read"):
        Vocabulary.load(tmp_path / "none.json")


@settings(deadline=None, max_examples=30)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(["alpha", "Beta", "x", "γάμμα", "d_1", "beta", ",", "42"]), max_size=8).map(" ".join),
        min_size=2,
        max_size=8,
    ),
    min_documents=st.integers(1, 2),
)
def test_equals_scikit_learn(texts, min_documents):
    text = pytest.importorskip("sklearn.feature_extraction.text")
    oracle = text.TfidfVectorizer(min_df=min_documents)
    try:
        expected = oracle.fit_transform(texts)
    except ValueError:
        with pytest.raises(DataError):
            fit(texts, min_documents=min_documents)
        return
    vocabulary = fit(texts, min_documents=min_documents)
    assert list(vocabulary.terms) == oracle.get_feature_names_out().tolist()
    np.testing.assert_allclose(vocabulary.idf, oracle.idf_, rtol=1e-12)
    np.testing.assert_allclose(vocabulary.transform(texts).toarray(), expected.toarray(), rtol=1e-6)
    json.dumps(vocabulary.idf)
