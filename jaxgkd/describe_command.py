"""``jaxgkd describe``: its flags, and what it does with them::

    jaxgkd describe --data chembl2321810 --out texts.jsonl
    jaxgkd describe --data bbbp --backend server --base-url http://localhost:8000/v1 --model qwen3-8b \\
        --about "blood-brain barrier penetration" --out texts.jsonl

The key of a server is read from the environment alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxgkd.errors import ConfigError

if TYPE_CHECKING:
    from jaxgkd.data.molecules import Molecules
    from jaxgkd.teachers.describe import Describer, DescribeReport, Question

# Of the failed molecules and their reasons, the first are printed.
_SHOWN = 10


@dataclass(frozen=True)
class Describe:
    """Ask a language model to describe every molecule of a data set, and keep its answers in a file.

    Run it again with the same flags to go on after a crash, or to ask once more what stayed unanswered.
    """

    data: str = "chembl2321810"
    """chembl2321810 or egfr (inside RDKit's package), a name under $JAXGKD_DATA/molecules, or a .csv or .sdf file of
    molecules."""
    out: Path = Path("descriptions.jsonl")
    """File of answers, one JSON line a molecule; answers that are in it are not asked for again."""
    backend: Literal["template", "server", "local"] = "template"
    """Who answers: a template filled in by RDKit, a server that speaks OpenAI's protocol, or a model run here."""
    model: str = ""
    """Name of the model at the server; for a local one, a folder or a Hugging Face id."""
    about: str = ""
    """Property that the descriptions should dwell on, in words; no label is ever shown or asked for."""
    parts: tuple[Literal["smiles", "structure", "image"], ...] = ("smiles", "structure")
    """What the model sees of a molecule: its SMILES, a sentence for every bond, a drawing."""
    label: tuple[str, ...] = ()
    """Columns that are labels, where a table leaves that open; the model does not see them."""
    limit: int | None = None
    """Describe the first so many molecules only."""
    max_tokens: int = 400
    """Tokens of an answer; longer ones are cut, and counted."""
    temperature: float | None = 0.0
    """How freely words are chosen; None leaves it to the server, as some models demand."""
    base_url: str | None = None
    """Address of the server, such as http://localhost:8000/v1; by default OpenAI's."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key."""
    concurrency: int = 8
    """Questions a server is asked at the same time."""
    requests_per_minute: float | None = None
    """Requests a server gets in a minute, at most."""
    timeout: float = 120.0
    """Seconds a server may stay silent before it is asked again."""
    retries: int = 6
    """Times a server is asked again before a molecule is given up."""
    batch_size: int = 8
    """Questions a local model answers at once."""
    dry_run: bool = False
    """Only count what would be asked, and what it would cost at the prices below."""
    price_in: float | None = None
    """Price of a million tokens read, in any currency."""
    price_out: float | None = None
    """Price of a million tokens written."""


def run(config: Describe, console: Console) -> "DescribeReport | None":
    """Describe the molecules and print what became of them; None after a dry run.

    Raises:
      ConfigError: a flag cannot be used, the file cannot be written, or the model or its server refuses.
      DataError: the data or the file of answers cannot be used.
    """
    from jaxgkd.data import registry
    from jaxgkd.teachers.describe import describe

    if not config.parts:
        raise ConfigError("no part is named", field="--parts", mend="name smiles, structure or image")
    if config.limit is not None and config.limit < 1:
        raise ConfigError(f"the value is {config.limit}", field="--limit", mend="give 1 or more")
    if (config.price_in is None) != (config.price_out is None):
        raise ConfigError("one price is given", field="--price-in", mend="give --price-in and --price-out")
    if config.backend == "local" and "image" in config.parts:
        raise ConfigError("a local model sees no pictures", field="--parts", mend="leave image out")
    describer = _describer(config)
    # Labels are not shown: which columns they are matters only to whoever names them.
    options: dict[str, Any] = {} if config.data in registry.embedded("gallon") else {"labelled": False}
    if config.label:
        options = {"labels": config.label}
    molecules = registry.load(config.data, recipe="gallon", **options)
    firsts = [i for i, earlier in enumerate(molecules.repeats.tolist()) if earlier < 0][: config.limit]
    repeats = len(molecules) - int((molecules.repeats < 0).sum())
    console.print(f"{len(molecules):,} molecules, {repeats:,} of them repeats; {len(firsts):,} to describe")
    if config.dry_run:
        return _print_estimate(config, describer, molecules, firsts, console)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("describing", total=len(firsts))
        report = describe(
            _questions(config, molecules, firsts),
            describer,
            config.out,
            on_progress=lambda done, failed: progress.update(task, completed=done + failed),
        )
    _print_report(config, report, console)
    return report


def _describer(config: Describe) -> "Describer":
    if config.backend == "template":
        from jaxgkd.teachers.describe import Template

        for flag, given in (("--model", config.model), ("--about", config.about), ("--base-url", config.base_url)):
            if given:
                what = "the template asks no model"
                raise ConfigError(what, field=flag, mend="add --backend server or local, or leave it out")
        return Template()
    if not config.model:
        raise ConfigError("no model is named", field="--model", mend="name the one to ask")
    shared: dict[str, Any] = {"max_tokens": config.max_tokens}
    if config.backend == "local":
        from jaxgkd.teachers.local_describer import LocalDescriber

        shared |= {"temperature": config.temperature or 0.0, "batch_size": config.batch_size}
        return LocalDescriber.load(config.model, **shared)
    from jaxgkd.teachers.chat_server import ChatServer

    return ChatServer(
        config.model,
        base_url=config.base_url,
        key_variable=config.key_variable,
        temperature=config.temperature,
        timeout=config.timeout,
        concurrency=config.concurrency,
        requests_per_minute=config.requests_per_minute,
        retries=config.retries,
        **shared,
    )


def _questions(config: Describe, molecules: "Molecules", firsts: list[int]) -> "Iterator[Question]":
    """One after another, since all drawings together may not fit into memory."""
    from rdkit import Chem, rdBase

    from jaxgkd.data.molecule_texts import structure_sentences, template_description
    from jaxgkd.teachers.describe import Question, molecule_question

    for i in firsts:
        smiles = molecules.canonical_smiles(i)
        # Read from its canonical SMILES, a molecule has the same atom numbers in whatever file it was found.
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(smiles) or molecules.rdkit_molecule(i)
        if config.backend == "template":
            yield Question(smiles, template_description(molecule), system="")
            continue
        image = None
        if "image" in config.parts:
            from jaxgkd.data.molecule_drawings import png

            image = png(molecule)
        yield molecule_question(
            smiles,
            about=config.about,
            show_smiles="smiles" in config.parts,
            structure=structure_sentences(molecule) if "structure" in config.parts else None,
            image=image,
        )


def _print_estimate(
    config: Describe, describer: "Describer", molecules: "Molecules", firsts: list[int], console: Console
) -> None:
    from jaxgkd.teachers.describe import CHARACTERS_PER_TOKEN, TOKENS_PER_IMAGE, estimate

    guess = estimate(_questions(config, molecules, firsts), describer, config.out)
    console.print(f"still to ask: {guess.n_left:,} of {guess.n_question:,}")
    rule = f"{CHARACTERS_PER_TOKEN} characters a token, {TOKENS_PER_IMAGE} tokens a drawing"
    tokens = f"tokens: about {guess.input_tokens:,} read ({rule}), at most {guess.output_tokens:,} written"
    console.print(tokens, soft_wrap=True)
    _print_cost(config, "at most about ", guess.input_tokens, guess.output_tokens, console)


def _print_report(config: Describe, report: "DescribeReport", console: Console) -> None:
    for note in report.notes:
        console.print(f"note: {note}")
    console.print(f"{report.n_answered:,} answered, {report.n_kept:,} kept from before, {len(report.failed):,} failed")
    if report.n_cut:
        console.print(f"{report.n_cut:,} answers were cut at {config.max_tokens} tokens")
    if report.retries:
        again = ", ".join(f"{reason} {count:,}×" for reason, count in report.retries.items())
        console.print(f"asked again: {again}", soft_wrap=True, highlight=False, markup=False)
    if report.input_tokens or report.output_tokens:
        console.print(f"tokens: {report.input_tokens:,} read, {report.output_tokens:,} written")
        _print_cost(config, "", report.input_tokens, report.output_tokens, console)
    for smiles, reason in report.failed[:_SHOWN]:
        console.print(f"failed: {smiles}: {reason}", soft_wrap=True, highlight=False, markup=False)
    if len(report.failed) > _SHOWN:
        console.print(f"… and {len(report.failed) - _SHOWN:,} more; run again to ask them once more")
    console.print(f"answers: {config.out}", soft_wrap=True, highlight=False, markup=False)


def _print_cost(config: Describe, words: str, input_tokens: int, output_tokens: int, console: Console) -> None:
    if config.price_in is not None and config.price_out is not None:
        cost = (input_tokens * config.price_in + output_tokens * config.price_out) / 1e6
        console.print(f"cost: {words}{cost:,.2f}")
