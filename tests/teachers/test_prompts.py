import math
import re
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.errors import ConfigError
from jaxgkd.teachers import INSTRUCTIONS, Rings, distance_rings, encoder_prompts, instruction_prompts, prompt_hash
from jaxgkd.teachers.prompts import MAX_TITLE_TOKENS, OWN_TEXT_SHARE, bare_tokenizer

CLASSES = ("graph learning", "molecules", "brains")
NO_LINKS = Rings(np.arange(1), (), ())
WORDS = st.lists(
    st.sampled_from(["graph", "neural", "networks", "teaches", "ab.", "x;y", "é", "\n", "(12)"]), max_size=60
)


@st.composite
def graphs(draw):
    """A few nodes with texts, titles that begin with "#" and their own number (some are empty), and rings."""
    rows = draw(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
    titles = tuple(" ".join([f"#{i}", *title]) if title else " " for i, (_, title) in enumerate(rows))
    texts = tuple(" ".join(text) for text, _ in rows)
    ends = draw(st.lists(st.tuples(*[st.integers(0, len(rows) - 1)] * 2), max_size=20))
    rings = distance_rings(*np.array(ends, dtype=np.int64).reshape(-1, 2).T, len(rows), hops=3, max_neighbours=4)
    return SimpleNamespace(texts=texts, titles=titles, class_names=CLASSES), rings


def own_text_and_named(prompt, kind):
    """The own text of a prompt and the numbers of the neighbours it names, after checking what is fixed."""
    if kind == "instruction":
        before, rest = prompt.split("### Input:\n")
        assert before.startswith("### Instruction:\n" + INSTRUCTIONS[0]) and all(name in before for name in CLASSES)
        assert rest.endswith("\n\n### Response:\n")
        prompt = rest.removesuffix("\n\n### Response:\n")
    own, *lists = prompt.split("\nLinked" if kind == "instruction" else "\nRelated")
    return own, [[int(number) for number in re.findall(r"#(\d+)", listed)] for listed in lists]


@pytest.mark.parametrize("kind", ["encoder", "instruction"])
@pytest.mark.parametrize("tokenizer_name", ["wordpiece", "byte_bpe"])
@settings(deadline=None, max_examples=40)
@given(case=graphs(), hop=st.integers(0, 3), room=st.integers(8, 150))
def test_prompts_keep_their_promises(request, kind, tokenizer_name, case, hop, room):
    tokenizer = request.getfixturevalue(tokenizer_name)
    graph, rings = case
    make = {"encoder": encoder_prompts, "instruction": instruction_prompts}[kind]
    fixed = make(SimpleNamespace(texts=("",), titles=("",), class_names=CLASSES), tokenizer).n_tokens[0]
    limit = int(fixed) + room
    prompts = make(graph, tokenizer, hop=hop, rings=rings, max_tokens=limit)

    def length(text):
        return len(tokenizer.encode(text, add_special_tokens=False))

    assert [len(tokenizer.encode(prompt)) for prompt in prompts.texts] == prompts.n_tokens.tolist()
    assert prompts.n_tokens.max() <= limit
    own_cut, dropped, truncated = 0, 0, 0
    for i, prompt in enumerate(prompts.texts):
        own, named = own_text_and_named(prompt, kind)
        text = graph.texts[i].strip()
        ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
        share = min(len(ends), math.ceil(OWN_TEXT_SHARE * room))
        assert text.startswith(own)
        assert share == 0 or len(own) >= len(text[: ends[share - 1]].rstrip())

        groups = [[j for j in rings.ring(i, h).tolist() if graph.titles[j].strip()] for h in range(1, hop + 1)]
        all_of_them, some_of_them = list(chain(*groups)), list(chain(*named))
        # Nearest first: what is left out is the end of the last ring.
        assert some_of_them == all_of_them[: len(some_of_them)]
        assert [len(group) for group in named[:-1]] == [len(group) for group in groups if group][: len(named[:-1])]
        lost = len(all_of_them) - len(some_of_them)
        shortened = any(length(" ".join(graph.titles[j].split())) > MAX_TITLE_TOKENS for j in some_of_them)
        own_cut, dropped = own_cut + (own != text), dropped + lost
        truncated += own != text or lost > 0 or shortened
    assert (prompts.n_own_text_cut, prompts.n_titles_dropped, prompts.n_truncated) == (own_cut, dropped, truncated)


def test_the_two_templates(wordpiece):
    graph = SimpleNamespace(texts=("a text", "b", "c"), titles=("A", "B  b", "C"), class_names=("x", "y"))
    rings = distance_rings(np.array([0, 1]), np.array([1, 2]), 3, hops=2)
    encoder = [encoder_prompts(graph, wordpiece, hop=h, rings=rings).texts[0] for h in range(3)]
    assert encoder == [
        "a text",
        "a text\nRelated: B b",
        "a text\nRelated: B b\nRelated at distance 2: C",
    ]
    decoder = instruction_prompts(graph, wordpiece, hop=2, rings=rings, instruction="Name its class.").texts[0]
    assert decoder == (
        "### Instruction:\nName its class.\nCandidate classes: x; y.\n\n### Input:\na text\nLinked directly: B b"
        "\nLinked at distance 2: C\n\n### Response:\n"
    )
    assert encoder_prompts(graph, wordpiece).texts == ("a text", "b", "c")


def test_a_long_text_yields_a_third_and_a_short_one_all_of_the_rest(wordpiece):
    graph = SimpleNamespace(texts=("graph " * 90, "graph"), titles=("neural " * 9, "brains " * 9), class_names=())
    everyone = np.tile(np.arange(2, 42), 2)
    graph.texts += ("x",) * 40
    graph.titles += ("links",) * 40
    rings = distance_rings(np.repeat([0, 1], 40), everyone, 42, hops=1, max_neighbours=40, nodes=np.arange(2))
    prompts = encoder_prompts(graph, wordpiece, hop=1, rings=rings, max_tokens=62)
    # 60 free tokens, 40 of them the text's. The heading takes 8, the first title 1, each further one 2: 6 titles make
    # 19 and the text gets the token they leave. The short text is 1 token long, which leaves 59: 26 titles.
    assert prompts.texts[0].count("graph") == 41 and prompts.texts[0].count("links") == 6
    assert prompts.texts[1].count("graph") == 1 and prompts.texts[1].count("links") == 26
    assert (prompts.n_truncated, prompts.n_own_text_cut, prompts.n_titles_dropped) == (2, 1, 34 + 14)


def test_long_titles_are_cut_and_counted(wordpiece):
    graph = SimpleNamespace(texts=("a", "b"), titles=("a", "graph " * 50), class_names=())
    rings = distance_rings(np.array([0]), np.array([1]), 2, hops=1, nodes=np.array([0]))
    prompts = encoder_prompts(graph, wordpiece, hop=1, rings=rings)
    assert prompts.texts[0].count("graph") == MAX_TITLE_TOKENS and prompts.n_truncated == 1


def test_too_little_room_is_refused_with_the_number_that_would_do(wordpiece):
    graph = SimpleNamespace(texts=("a",), titles=("a",), class_names=CLASSES)
    with pytest.raises(ConfigError, match=r"max_tokens.*allow at least") as raised:
        instruction_prompts(graph, wordpiece, max_tokens=20)
    enough = int(str(raised.value).rstrip(".").split()[-1])
    assert instruction_prompts(graph, wordpiece, max_tokens=enough).n_truncated == 0
    with pytest.raises(ConfigError, match=r"hop 1 is not within 0\.\.0"):
        encoder_prompts(graph, wordpiece, hop=1, rings=NO_LINKS)


def test_the_callers_tokenizer_is_left_as_it_was(wordpiece):
    backend = tokenizers.Tokenizer.from_str(wordpiece.to_str())
    backend.enable_truncation(5)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    fast.backend_tokenizer.enable_truncation(5)
    before = fast.backend_tokenizer.to_str()
    graph = SimpleNamespace(texts=("graph " * 30,), titles=("a",), class_names=())
    assert encoder_prompts(graph, fast, max_tokens=20).n_tokens[0] == 20
    assert fast.backend_tokenizer.to_str() == before
    with pytest.raises(ConfigError, match="not a fast tokenizer"):
        bare_tokenizer(object())


def test_prompt_hash_sees_order_seams_and_every_character():
    assert prompt_hash(["a", "b"]) == prompt_hash(("a", "b"))
    several = [["a", "b"], ["b", "a"], ["ab"], ["ab", ""], ["a", "b "], ["a", "\ud800"], []]
    assert len({prompt_hash(each) for each in several}) == len(several)
    assert prompt_hash([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
