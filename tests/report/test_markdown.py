from jaxgkd.report.markdown import code_block, literal, sentence, table_head, table_row


def test_cells_stay_in_their_row():
    assert table_row(["a|b", "two\nlines", ""]) == "| a\\|b | two lines |  |"
    assert table_head(["name", "a", "b"])[1] == "|---|--:|--:|"


def test_literal_text_is_escaped():
    assert literal("a_b <i>*x*</i>\n[l](u) $y$ `z`") == "a\\_b \\<i\\>\\*x\\*\\</i\\> \\[l\\](u) \\$y\\$ \\`z\\`"


def test_sentences_end_once():
    assert [sentence(text) for text in ("", "one", "two.", "three!")] == ["", "one.", "two.", "three!"]


def test_fences_are_longer_than_those_inside():
    assert code_block("a ```` b", "sh") == "`````sh\na ```` b\n`````"
