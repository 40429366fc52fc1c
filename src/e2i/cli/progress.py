"""What a person sees while a study runs: bars on a terminal, plain lines otherwise; always on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from e2i.cli.output import is_interactive, print_note

if TYPE_CHECKING:
    from e2i.engine.hooks import Signal


class PlainProgress:
    """One line per finished agent step; a line per tenth of long work."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def step(self, signal: Signal) -> None:
        """A step began or ended."""
        if not self._quiet and signal.phase != "started":
            mark = "done" if signal.phase == "finished" else "FAILED"
            print_note(f"{mark:<6} {signal.agent}.{signal.step} {signal.seconds:.1f} s")

    def advance(self, what: str, *, done: int, of: int, note: str = "") -> None:
        """Long work came further."""
        tenth = 10 * done // max(of, 1)
        if not self._quiet and tenth != self._tenths.get(what):
            self._tenths[what] = tenth
            print_note(f"       {what} {done}/{of} {note}".rstrip())


class BarProgress:
    """A line with a spinner per running step, a bar for long work."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=False)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, signal: Signal) -> None:
        """One line per agent; its text is the step at work."""
        if signal.agent not in self._tasks:
            self._tasks[signal.agent] = self._progress.add_task(signal.agent, total=None)
        task = self._tasks[signal.agent]
        if signal.phase == "started":
            self._progress.update(task, description=f"{signal.agent}: {signal.step.replace('_', ' ')}", total=None)
        else:
            self._progress.update(task, description=f"{signal.agent}: {signal.phase}", total=1, completed=1)

    def advance(self, what: str, *, done: int, of: int, note: str = "") -> None:
        """A bar of its own."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=of)
        self._progress.update(self._tasks[what], completed=done, total=of, description=f"  {what} {done}/{of} {note}".rstrip())


def progress_display(*, quiet: bool) -> PlainProgress | BarProgress:
    """Bars on a terminal, lines elsewhere, nothing with `quiet`."""
    return BarProgress() if is_interactive() and not quiet else PlainProgress(quiet=quiet)
