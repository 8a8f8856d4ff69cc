"""The HTML pages are parsed, not looked at: nothing from elsewhere, every image named, every table whole."""

import base64
from html.parser import HTMLParser

from jaxgkd.report import write_report
from jaxgkd.report.html import html_page

VOID = {"meta", "img", "br", "hr", "link", "input"}
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Elements as (tag, attributes), the tables as rows of (tag, text), and whether every element is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[tuple[str, str]]]] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append((tag, ""))
        elif tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            tag, text = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (tag, text + data)
        elif self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_page(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "data:image/png;base64,").startswith("data:image/png;base64,")
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style
    policy = next(each["content"] for each in page.named("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    assert any(each.get("name") == "viewport" for each in page.named("meta"))
    assert page.named("html") == [{"lang": "en"}]
    assert all((each.get("alt") or "").strip() for each in page.named("img"))
    for table in page.tables:
        head, *rows = table
        assert {tag for tag, _ in head} == {"th"}
        assert rows
        for row in rows:
            assert [tag for tag, _ in row] == ["th"] + ["td"] * (len(head) - 1)
    scopes = [each.get("scope") for each in page.named("th")]
    assert set(scopes) <= {"row", "col"}
    frames = [each for each in page.named("div") if each.get("class") == "wide"]
    assert len(frames) == len(page.tables)
    assert all(each["tabindex"] == "0" and each["role"] == "region" and each["aria-label"] for each in frames)
    return page


def test_a_run_has_a_page_of_its_own(run_directory, summary):
    given = summary(baselines={"mlp": 0.74})
    given["results"]["student_alone"]["per_class"] = [[0.5] * 7] * 5
    path = run_directory(summary=given)
    write_report(path)
    text = (path / "report.html").read_text(encoding="utf-8")
    page = check_page(text)
    assert page.headings[:2] == ["lingugkd on scipy-docs", "Results"]
    assert len(page.named("img")) == len(list((path / "figures").iterdir())) == 6
    assert page.tables[0][3][0] == ("th", "student distilled")
    assert len(page.named("details")) == 1
    assert [cell for _, cell in page.tables[1][1]] == ["algebra", "50.0"]
    assert "&lt;details" not in text


def test_names_cannot_break_the_page(run_directory, summary):
    given = summary()
    given["data"]["name"] = 'a|b <script>alert(1)</script> <img src="http://example.org/x.png">'
    given["protocol"] = "<script src='http://example.org/a.js'></script> [x](javascript:alert(1))"
    given["results"]["student_alone"]["label"] = "plain | *GNN* <b onclick='x()'>"
    given["notes"] = ["![seen](http://example.org/y.png)", "![file](../secret.png)", "a [link](http://example.org)"]
    path = run_directory(summary=given, metrics={}, predictions={})
    (path.parent / "secret.png").write_bytes(PNG + b"secret")
    write_report(path)
    text = (path / "report.html").read_text(encoding="utf-8")
    page = check_page(text)
    assert len(page.named("img")) == 1 and not page.named("a")
    assert base64.b64encode(PNG + b"secret").decode()[:20] not in text
    assert "a|b &lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_markdown_becomes_elements():
    text = html_page(
        "# A & B\n\n![seen <here>](figures/x.png)\n\nWhat it is.\n\n## T\n\n| a | b |\n|---|--:|\n| 1 | "
        + "long " * 12
        + "|\n\n<details><summary>More</summary>\n\ninside\n\n</details>\n\n<b>not bold</b>\n",
        title="A & B",
        figures={"figures/x.png": PNG},
    )
    page = check_page(text)
    assert page.headings == ["A & B", "T"]
    assert "<title>A &amp; B</title>" in text
    assert page.named("img")[0]["alt"] == "seen <here>"
    assert "<figcaption>What it is.</figcaption>" in text
    assert page.named("td")[0]["class"] == "long"
    assert page.named("div")[0]["aria-label"] == "table, T"
    assert "<summary>More</summary>" in text and "&lt;b&gt;not bold" in text


def test_an_image_alone_is_a_figure_without_a_caption():
    text = html_page("![one](a.png)\n\n![two](b.png)\n", title="t", figures={"a.png": PNG, "b.png": PNG + b"b"})
    page = check_page(text)
    assert len(page.named("figure")) == 2 and not page.named("figcaption")
    assert page.named("img")[0]["src"] != page.named("img")[1]["src"]
