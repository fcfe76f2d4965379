"""Runs, the third screen: all of them in a table, compared, renamed, deleted and brought back."""
import contextlib
import os
import re
import time
from collections import namedtuple
from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.binding import Binding
from textual.widgets import DataTable, Input

from runs import LIVE, METRICS, ago, along, clean, differing, fixed, number, short, size
from screens.basics import (
    COLORS, DIM, KEY, ROOMY, WIDE, Words, best_loss, fit_for_a_name, hidden, written,
)
from screens.chart import HUES, LETTERS, Chart, Curve
from screens.charted import CHART_KEYS, Charted
from screens.shared import Ask, Enter

# width: the terminal's, from which it is shown; down: sorted with the largest first; form: a number's,
# right-aligned.
Column = namedtuple("Column", "title width value down form")
SHORTEST_NAME = 12                               # columns that a run's name keeps where it is cut
TRASH = ".trash"                                 # the folder beside the runs to which deleted ones go


def configured(run, name):
    "A value of a run's configuration, as text."
    return clean(run.part("train").get(name, "—"))


def kind_of_tokens(run):
    "Its level; two BPEs of other sizes cut a text otherwise."
    level = configured(run, "level")
    return (level, run.part("model").get("vocab_size")) if level == "bpe" else level


def best_bits(run):
    best = run.best
    return best.bits if best else None


def delete_run(folder):
    "Delete what a run consists of and nothing else. -> what is wrong, or nothing"
    ours = re.compile(r"config\.json|metrics\.jsonl|train\.log|control|.+\.(pt|tmp)|chat-.+"
                      r"|events\.out\.tfevents\..+")
    try:
        for path in list(folder.iterdir()):
            if ours.fullmatch(path.name):
                path.unlink()
        folder.rmdir()
    except OSError as e:
        return f"{clean(folder)}: {e.strerror}"


def to_trash(folder, when):
    "Move a run away, under a name that says when. -> what is wrong, or nothing"
    trash = folder.parent / TRASH
    try:
        trash.mkdir(exist_ok=True)
        folder.rename(trash / f"{when}.{folder.name}")
    except OSError as e:
        return f"{clean(folder)}: {e.strerror}"


def in_trash(root):
    "The folders that were moved away last, all at once."
    found = []
    with contextlib.suppress(OSError):
        found = sorted(path for path in (root / TRASH).iterdir() if "." in path.name)
    return [path for path in found if path.name.partition(".")[0] == found[-1].name.partition(".")[0]]


class RunTable(DataTable):
    "The list, whose keys are about a whole line."

    BINDINGS = [
        Binding("enter", "screen.open", "Watch"),
        hidden("home,g", "scroll_top", "First run"),
        hidden("end,G", "scroll_bottom", "Last run"),
    ]


class Runs(Charted):
    HELP = """All runs of this folder. Space marks runs whose curves are then laid over one another; with none
marked, the chart shows the one under the cursor. A click on a column's title sorts by it."""
    CSS = """
    Runs {
        #filter:disabled { display: none; }
        #table { scrollbar-size-horizontal: 0; }
        #overlay { border-top: solid $foreground 15%; border-title-color: $text-accent; }
        #none { display: none; padding: 1 3; height: 1fr; }
        #differs { height: auto; padding: 0 1; border-top: solid $foreground 15%; text-wrap: nowrap; }
    }
    """
    KEYED = (RunTable,)
    BINDINGS = [
        Binding("space", "mark", "Overlay"),
        hidden("s", "sort", "Sort by the next column"),
        hidden("S", "reverse", "Sort the other way"),
        Binding("slash", "filter", "Filter"),
        Binding("c", "chat", "Chat"),
        Binding("n", "rename", "Rename"),
        Binding("d", "delete", "Delete"),
        Binding("u", "undo", "Undo"),
        hidden("U", "empty", "Empty the trash"),
        hidden("w", "copy", "Copy the command"),
        hidden("escape", "clear", "Show all"),
        *CHART_KEYS,
    ]
    COLUMNS = [
        Column("run", 0, lambda run: run.name.lower(), False, None),
        Column("state", 0, lambda run: run.state, False, None),
        Column("preset", WIDE, lambda run: configured(run, "preset"), False, None),
        Column("level", WIDE, lambda run: configured(run, "level"), False, None),
        Column("data", WIDE, lambda run: Path(configured(run, "data")).name, False, None),
        Column("weights", WIDE, lambda run: run.weights, True, short),
        Column("steps", 0, lambda run: run.step, True, "{:,}".format),
        Column("best", 0, best_loss, False, fixed),
        Column("b/byte", ROOMY, best_bits, False, fixed),
        Column("tok/s", ROOMY, lambda run: run.speed, True, short),
        Column("when", 0, lambda run: run.when, True, None),
    ]
    METRICS = METRICS
    PER_TOKEN = "validation loss", "training loss, smoothed", "gap: validation - training"
    metric = "validation loss"
    MOST_DIFFERENCES = 8                         # lines of them, in a tall terminal
    FEW_DIFFERENCES = 3                          # and in others
    FILTERED = "run", "state", "preset", "level", "data"  # the columns in which the filter looks

    def __init__(self):
        super().__init__()
        self.by = "when"                         # the column that sorts
        self.backwards = False
        self.marked = []                         # folders
        self.listed = []                         # the runs as they stand in the table
        self.drawn = None                        # what the table shows

    def body(self):
        filter_words = "filter: words of name, state, preset, level or data"
        yield Input(placeholder=filter_words, id="filter", compact=True, disabled=True)
        yield RunTable(id="table", cursor_type="row", zebra_stripes=False, cell_padding=1)
        yield Words(id="none")
        yield Chart("no such numbers yet", id="overlay")
        yield Words(id="differs")

    def on_mount(self):
        self.query_one(DataTable).focus()

    def column(self, title):
        return next(column for column in self.COLUMNS if column.title == title)

    def columns(self):
        return [column for column in self.COLUMNS if column.width <= self.size.width]

    @property
    def goes_down(self):
        "Whether the largest comes first."
        return self.column(self.by).down != self.backwards

    # which runs

    def found(self):
        "The runs that the filter leaves, sorted; those without such a number come last."
        wanted = self.query_one("#filter", Input).value.lower().split()
        looked_at = [self.column(title) for title in self.FILTERED]
        runs = []
        for run in self.app.runs.values():
            text = " ".join(column.value(run) for column in looked_at).lower()
            if all(word in text for word in wanted):
                runs.append(run)
        value = self.column(self.by).value
        known = [run for run in runs if value(run) is not None]
        unknown = [run for run in runs if value(run) is None]
        return sorted(known, key=value, reverse=self.goes_down) + unknown

    @property
    def run(self):
        "The one under the cursor."
        at = self.query_one(DataTable).cursor_row
        return self.listed[at] if 0 <= at < len(self.listed) else None

    def meant(self):
        "The marked runs; with none marked, the one under the cursor."
        marked = [self.app.runs[folder] for folder in self.marked if folder in self.app.runs]
        if marked:
            return marked
        return [self.run] if self.run else []

    @property
    def differ_in_tokens(self):
        "Whether the runs that are meant have several kinds of tokens: then only bytes compare."
        return len({kind_of_tokens(run) for run in self.meant()}) > 1

    @property
    def metrics(self):
        return [name for name in METRICS if not (self.differ_in_tokens and name in self.PER_TOKEN)]

    @property
    def shown_metric(self):
        return self.metric if self.metric in self.metrics else "bits per byte"

    # what is shown

    @on(Input.Changed, "#filter")
    def show(self):
        super().show()
        table = self.query_one(DataTable)
        table.display = bool(self.app.runs)
        here = self.run
        self.marked = [folder for folder in self.marked if folder in self.app.runs]
        self.listed = self.found()
        columns = self.columns()
        rows = [self.cells(run, columns) for run in self.listed]
        titles = [column.title for column in columns]
        texts = [[cell.markup for cell in row] for row in rows]
        drawn = self.size.width, titles, self.by, self.backwards, texts
        if drawn != self.drawn:
            self.drawn = drawn
            self.fill(table, columns, rows)
            if here in self.listed:
                table.move_cursor(row=self.listed.index(here))
        self.show_chart()
        self.show_none()

    def show_none(self):
        "In place of the chart, where no run is listed: why."
        none = self.query_one("#none", Words)
        none.display = not self.listed
        self.query_one(Chart).display = bool(self.listed)
        if self.listed:
            return
        self.query_one("#differs").display = False
        if self.app.runs:
            wanted = clean(self.query_one("#filter", Input).value.strip())
            none.put(f"Nothing matches {wanted}. ", ("esc", KEY), " shows all runs.")
            return
        none.put(
            ("No runs yet", "bold"), f" in {clean(self.app.root.absolute())}\n\n",
            ("1", KEY), " chooses a preset: nano takes a minute or two.\nElsewhere: ",
            ("python tui.py --runs FOLDER", "bold"), ", or one run: ", ("python tui.py RUN", "bold"),
        )

    def fill(self, table, columns, rows):
        table.clear(columns=True)
        table.styles.height = min(len(rows) + 1, max(3, self.size.height // 2))
        titles = []
        widths = []
        for i, column in enumerate(columns):
            title = column.title
            if title == "run":
                title = f"  {title}"             # below the letter of the overlay
            if column.title == self.by:
                title += "▼" if self.goes_down else "▲"
            titles.append(Text(title))
            widths.append(max(cell.cell_len for cell in [titles[i], *(row[i] for row in rows)]))
        over = sum(widths) + 2 * len(widths) + 1 - self.size.width  # 1: the scroll bar's
        widths[0] = min(widths[0], max(SHORTEST_NAME, widths[0] - over))
        for row in rows:
            row[0].truncate(widths[0], overflow="ellipsis")
        for column, title, width in zip(columns, titles, widths):
            table.add_column(title, key=column.title, width=width)
        for run, row in zip(self.listed, rows):
            table.add_row(*row, key=str(run.folder))

    def cells(self, run, columns):
        "A line of the table."
        color = self.app.color
        cells = []
        for column in columns:
            value = column.value(run)
            if column.title == "run":
                name = (run.name, "bold" if run is self.app.chosen else "")
                cells.append(Text.assemble(self.letter(run), " ", name))
            elif column.title == "state":
                dot = "●" if run.state in LIVE else " "
                hue = COLORS.get(run.state, "primary")
                cells.append(Text(f"{dot} {run.state}", color(f"text-{hue}")))
            elif column.title == "when":
                cells.append(Text(ago(time.time() - run.when), f"{color('foreground')} dim"))
            elif column.title == "steps":
                cells.append(Text(self.steps(run), justify="right"))
            elif column.form:
                cells.append(Text(column.form(value), justify="right"))
            else:
                cells.append(Text(value))
        return cells

    def letter(self, run):
        "That of the run's curve, where runs are laid over one another."
        if run.folder not in self.marked:
            return " ", ""
        mark = self.marked.index(run.folder) % 6
        return LETTERS[mark], f"bold {self.app.color('text-' + HUES[mark])}"

    def steps(self, run):
        most = number(run.start.get("max_iters"))
        if most and run.state != "done":
            return f"{short(run.step)}/{short(most)}"
        return f"{run.step:,}"

    @on(DataTable.RowHighlighted)
    def show_chart(self):
        runs = self.meant()
        which = self.shown_metric
        curves = []
        title = [f"{which}, by {self.axis}"]
        for i, run in enumerate(runs):
            x = along(run, self.axis)
            points = [(x(step), y) for step, y in METRICS[which](run)]
            if not points and len(runs) > 1:
                are_words = configured(run, "level") == "word"  # which can't spell rare ones
                why = "words have none" if are_words and which == "bits per byte" else "none"
                title.append(f"{LETTERS[i % 6]}: {why}")
            is_here = run is self.run and len(runs) > 1
            curves.append(Curve(run.name[:24], str(i % 6), points, "strong" if is_here else "line"))
        curves.sort(key=lambda curve: curve.look == "strong")  # what is drawn last covers the others
        chart = self.query_one(Chart)
        if which != self.metric:
            title.append("only bytes compare")
        chart.border_title = " · ".join(title)
        chart.plot(curves, unit=self.axis)
        self.show_differences(runs)

    def show_differences(self, runs):
        "Below the curves: in which settings the runs differ, as many as there is room for."
        differs = self.query_one("#differs", Words)
        found = differing(runs)
        differs.display = bool(found) and not self.has_class("-flat")
        most = self.MOST_DIFFERENCES if self.has_class("-tall") else self.FEW_DIFFERENCES
        parts = [(f"{'they differ in':24}", KEY)]
        for i in range(len(runs)):
            parts.append((f"{LETTERS[i % 6]:11}", f"bold $text-{HUES[i % 6]}"))
        for name, values in list(found.items())[:most]:
            parts.append((f"\n{name:24}", DIM))
            parts.append("".join(f"{clean(written(value))[:10]:<11}" for value in values))
        if len(found) > most:
            parts.append((f"\nand {len(found) - most} more", DIM))
        differs.put(*parts)

    # keys

    def check_action(self, action, parameters):
        run = self.run if self.is_mounted else None
        if action in ("open", "mark", "delete", "rename", "copy"):
            return bool(run)
        if action == "chat":
            return bool(run and run.checkpoints)
        if action in ("undo", "empty"):
            return bool(in_trash(self.app.root))
        if action in ("sort", "reverse", "filter", "metric", "axis", "export", "log", "chart"):
            return bool(self.app.runs)
        return True

    @on(DataTable.RowSelected)
    def action_open(self):
        self.app.watch_run(self.run)

    def action_mark(self):
        folder = self.run.folder
        if folder in self.marked:
            self.marked.remove(folder)
        else:
            self.marked.append(folder)
        self.show()

    def action_sort(self):
        titles = [column.title for column in self.columns()]
        at = 0
        if self.by in titles:
            at = titles.index(self.by) + 1
        self.by = titles[at % len(titles)]
        self.backwards = False
        self.show()

    def action_reverse(self):
        self.backwards = not self.backwards
        self.show()

    @on(DataTable.HeaderSelected)
    def sort_by(self, event):
        title = event.column_key.value
        self.backwards = title == self.by and not self.backwards
        self.by = title
        self.show()

    def action_filter(self):
        box = self.query_one("#filter")
        box.disabled = False                     # which shows it; what is hidden only would get the focus
        box.focus()

    @on(Input.Submitted, "#filter")
    def to_table(self):
        self.query_one(DataTable).focus()

    def action_clear(self):
        box = self.query_one("#filter", Input)
        box.disabled = True
        box.value = ""
        self.query_one(DataTable).focus()

    @work
    async def action_delete(self):
        runs = self.meant()
        alive = [run.name for run in runs if run.state in LIVE]
        if alive:
            self.notify(f"{', '.join(alive)} is running: stop it first", severity="warning")
            return
        names = ", ".join(run.name for run in runs)
        text = f"Delete {names}, checkpoints and all?"
        trashes = sorted({run.folder.parent / TRASH for run in runs})
        back = ": u brings it back" if trashes == [self.app.root / TRASH] else ""  # the one that u looks into
        answer = await self.app.push_screen_wait(Ask(
            "delete", text, y=f"move to {', '.join(map(str, trashes))}{back}",
            x="delete for good, which makes room on the disk",
        ))
        if not answer:
            return
        when = time.strftime("%Y%m%d-%H%M%S")
        for run in runs:
            trouble = to_trash(run.folder, when) if answer == "y" else delete_run(run.folder)
            if trouble:
                self.notify(trouble, severity="error")
            self.app.forget(run)
        self.marked = []
        self.show()
        self.refresh_bindings()

    @work
    async def action_empty(self):
        "Delete for good what was moved away, whenever that was."
        trash = self.app.root / TRASH
        folders = [path for path in trash.iterdir() if path.is_dir()]
        taken = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
        count = "one run" if len(folders) == 1 else f"{len(folders)} runs"
        text = f"Delete for good what is in {trash}: {count}, {size(taken)}?"
        if not await self.app.push_screen_wait(Ask("empty the trash", text, x="delete for good")):
            return
        for folder in folders:
            trouble = delete_run(folder)
            if trouble:
                self.notify(trouble, severity="error")
        self.refresh_bindings()

    def action_undo(self):
        "Bring back what was deleted last."
        for folder in in_trash(self.app.root):
            new = self.app.root / folder.name.partition(".")[2]
            try:
                if new.exists():                 # else it would go into that folder, or take its place
                    raise FileExistsError(17, "there is another run of that name")
                folder.rename(new)
            except OSError as e:
                self.notify(f"{new}: {e.strerror}", severity="error")
                return
            self.app.look_at(new)
        self.show()
        self.refresh_bindings()

    @work
    async def action_rename(self):
        run = self.run
        if run.state in LIVE:
            self.notify(f"{run.name} is running: stop it first", severity="warning")
            return

        def problem(name):
            if not fit_for_a_name(name):
                return "a name without / \\ : * ? \" < > |"
            if name != run.folder.name and os.path.exists(run.folder.with_name(name)):
                return "there is one of that name"

        name = await self.app.push_screen_wait(Enter("rename", run.folder.name, problem))
        if not name or name == run.folder.name:
            return
        try:
            new = run.folder.rename(run.folder.with_name(name))
        except OSError as e:
            self.notify(f"can't rename: {e.strerror}", severity="error")
            return
        self.marked = [new if folder == run.folder else folder for folder in self.marked]
        self.app.renamed.append((run.folder, new))
        self.app.forget(run)
        self.app.look_at(new)
        self.show()
