"""A report's Markdown as one HTML file that needs nothing else: figures, styles and all.

The page asks for nothing over the network and runs no script, which its own content policy also forbids the browser to
allow; it follows the reader's light or dark setting, and wide tables scroll by themselves on a narrow screen.
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --muted: #59636e; --line: #d1d9e0; --paper: #fff; --shade: #f6f8fa;
  --link: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --muted: #a3abb5; --line: #3d444d; --paper: #14171b;
  --shade: #1e2329; --link: #6cb8e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem 1.25rem 3rem; background: var(--paper); color: var(--text);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
.wide:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: 16rem; }
tbody th { font-weight: normal; min-width: 8rem; }
thead th { color: var(--muted); font-weight: 600; border-bottom-width: 2px; vertical-align: bottom; }
.right { text-align: right; }
figure { margin: 1.5rem 0; }
img { display: block; width: 100%; max-width: 44rem; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
figcaption, footer { color: var(--muted); font-size: .9rem; margin-top: .4rem; max-width: 44rem; }
pre { background: var(--shade); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
code { font: .875em ui-monospace, monospace; }
:not(pre) > code { overflow-wrap: anywhere; white-space: normal; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--link); }
"""
# Nothing may be loaded but what is in the file itself.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_FOLD = re.compile(r"<details><summary>(.*)</summary>")
_LONG_CELL = 40


def html_page(markdown: str, *, title: str, figures: Mapping[str, bytes]) -> str:
    """A whole HTML document.

    Args:
      markdown: of a report. HTML and links in it are shown as text, except for a folded part as reports write it.
      title: of the window.
      figures: the PNG files that images of the Markdown name; of an image that is none of them the text is shown.

    Returns:
      The document. Every image has an alternative text, every table a head, and the first cell of its rows names them.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink"])
    tokens = _with_figures(parser.parse(markdown), figures)
    _name_cells(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        "</body>\n</html>\n"
    )


def _with_figures(tokens: Sequence[Token], figures: Mapping[str, bytes]) -> list[Token]:
    """The tokens with an image and the paragraph after it as a figure and its caption, folds and frames of tables."""
    for image in (child for token in tokens for child in token.children or () if child.type == "image"):
        # What comes out of the texts of a run must not make the page read another file.
        if image.attrs["src"] in figures:
            image.attrs["src"] = _data_uri(figures[str(image.attrs["src"])])
        else:
            image.type, image.tag, image.children = "text", "", None
    out: list[Token] = []
    at, heading = 0, ""
    while at < len(tokens):
        token = tokens[at]
        inside = _paragraph(tokens, at)
        if _is_figure(inside):
            out += [_raw("<figure>\n"), tokens[at + 1]]
            at += 3
            if (caption := _paragraph(tokens, at)) and not _is_figure(caption):
                out += [_raw("\n<figcaption>"), tokens[at + 1], _raw("</figcaption>")]
                at += 3
            out.append(_raw("\n</figure>\n"))
            continue
        if inside and (fold := _FOLD.fullmatch(tokens[at + 1].content)):
            out.append(_raw(f"<details><summary>{html.escape(fold[1])}</summary>\n"))
            at += 3
        elif inside and tokens[at + 1].content == "</details>":
            out.append(_raw("</details>\n"))
            at += 3
        else:
            heading = tokens[at + 1].content if token.type == "heading_open" else heading
            # A wide table scrolls by itself, and whoever has no mouse can get there with the tabulator key.
            if token.type == "table_open":
                name = html.escape(f"table, {heading}" if heading else "table")
                out.append(_raw(f'<div class="wide" tabindex="0" role="region" aria-label="{name}">\n'))
            out.append(token)
            if token.type == "table_close":
                out.append(_raw("</div>\n"))
            at += 1
    return out


def _paragraph(tokens: Sequence[Token], at: int) -> Sequence[Token]:
    """What is in the paragraph that begins here, nothing where none does."""
    return tokens[at + 1].children or [] if at < len(tokens) and tokens[at].type == "paragraph_open" else []


def _is_figure(inside: Sequence[Token]) -> bool:
    return len(inside) == 1 and inside[0].type == "image"


def _name_cells(tokens: Sequence[Token]) -> None:
    """Make the first cell of every row its head, say of every head what it is the head of, and let long texts wrap."""
    position = 0
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        match token.type:
            case "tr_open":
                position = 0
            case "th_open":
                token.attrs["scope"] = "col"
            case "td_open" if position == 0:
                token.tag, token.attrs["scope"] = "th", "row"
            case "td_open" if following is not None and len(following.content) > _LONG_CELL:
                token.attrs["class"] = "long"
            case "td_close":
                token.tag = "th" if position == 0 else "td"
                position += 1
        if style := token.attrs.pop("style", None):
            token.attrs.setdefault("class", str(style).removeprefix("text-align:"))


def _raw(text: str) -> Token:
    return Token("html_block", "", 0, content=text)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
