"""Reports: what a run directory says, as a page with figures, a table for the terminal, and a table over several runs.

A report reads a run directory alone and knows no model.

run_directory       the files of a run, read with errors that name file and field
wording             how a metric is written, and the sentence that says whether distillation helped
style               colours, title block and labels that all figures share
figures             results, learning curves, terms of the loss, layer weights
prediction_figures  confusion, map of the embeddings
bin_figures         accuracy by degree, and what bins share
brain_figures       sites of a cohort, and what doctors ask for
connections_figure  which connections of a brain go along with an answer
calibration_figure  whether probabilities mean what they say
molecule_figures    the metric by size, errors of a regression, ROC of a classification
page                ``report.md`` and ``report.html``
html                Markdown as one HTML file with its figures inside
markdown            rows, heads and text that is shown as written
console             the table at the end of a run, the table of several runs
pairing             which runs may be held against each other, and the tests between them
comparison          the page that compares runs
comparison_figures  what it draws
"""

from jaxgkd.report.comparison import compare_runs, write_comparison
from jaxgkd.report.console import console_table
from jaxgkd.report.page import write_report

__all__ = ["compare_runs", "console_table", "write_comparison", "write_report"]
