"""A comparison of strategies on the terminal."""

from rich.console import Console

from lab.comparison import Comparison
from lab.figures import Column, figures
from lab.summary import within
from poolhouse.display.table import Table


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a table and a verdict for each setting, and the results of the goals."""
    for verdict in comparison.verdicts:
        console.print(f"\n[bold]{comparison.title(verdict.setting)}[/]")
        shown = figures(within(verdict.setting, comparison.rows), brief=True)
        made = Table(*map(_heading, shown.columns))
        for line in shown.lines:
            made.add_row(*line)
        console.print(made)
        console.print(verdict.sentence)
    if comparison.goals:
        console.print("\n[bold]Goals[/]")
    for goal in comparison.goals:
        console.print(f"{'met' if goal['met'] else 'not met'}: {goal['goal']} (measured: {goal['measured']:.2f})")


def _heading(column: Column) -> str:
    """Return a heading for `Table`, in two lines if it has two words."""
    return column.title.replace(" ", "\n", 1) + "#" * column.is_number
