"""A comparison of strategies on the terminal."""

from rich.console import Console

from lab.comparison import Comparison
from lab.figures import Column, figures
from lab.summary import within
from poolhouse.display.table import Table


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a table and a verdict for each setting, and whether the goals are met."""
    for verdict in comparison.verdicts:
        console.print(f"\n[bold]{comparison.title(verdict.setting)}[/]")
        told = figures(within(verdict.setting, comparison.rows), brief=True)
        made = Table(*map(_heading, told.columns))
        for line in told.lines:
            made.add_row(*line)
        console.print(made)
        console.print(verdict.sentence)
    if comparison.goals:
        console.print("\n[bold]Goals[/]")
    for goal in comparison.goals:
        console.print(f"{'met' if goal['met'] else 'not met'}: {goal['goal']} (measured: {goal['measured']:.2f})")


def _heading(column: Column) -> str:
    """Give it as `table` takes it, in two lines where it has two words."""
    return column.title.replace(" ", "\n", 1) + "#" * column.is_number
