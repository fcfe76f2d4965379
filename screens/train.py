"""Train, the first screen: choose a preset, change what you like, start."""
import asyncio
import contextlib
import glob
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, DataTable, Input

from runs import HARMLESS, clean, fixed, in_words, number, short, size
from screens.basics import (
    DIM, KEY, ROOMY, Words, as_flags, best_loss, bits, command_line, fit_for_a_name, hidden, number_of,
    written,
)
from screens.catalog import LESSONS, LIMITS, WORK, tokens_to_see
from screens.shared import Ask, Field, Knob, Page, Pick
from screens.texts import Browse, Preview

NO_BREAK = "\N{NO-BREAK SPACE}"
LONG_HOURS = 2                                   # from which a training is no longer promised in green
TEXTS = ".txt", ".md", ".jsonl", ".csv"          # files that are likely to be meant
NOWHERE = "is no file and no text that can be fetched. ctrl+o lists those"


class Train(Page):
    HELP = """Choose a preset, change what you like, start. Each field is a flag of `python gpt.py train`;
what is wrong is said while you type. enter goes on, esc goes back to the presets. F6 shows the text as the
model gets it: a block is a token."""
    CSS = """
    Train {
        #left { width: 42; }
        #recipes { height: 1fr; overflow-x: hidden; }
        #look { display: none; padding: 0 1; border-top: solid $foreground 15%; height: 1fr; }
        &.-slim #left { width: 23; }
        &.-wide.-tall #look, &.-look #look { display: block; }
        &.-wide.-tall #recipes { height: auto; max-height: 60%; }
        &.-look #left { width: 1fr; }
        &.-look #recipes, &.-look #right { display: none; }
        &.-wide.-tall #recipes, &.-wide.-tall #right { display: block; }
        &.-flat #about, &.-flat #more { display: none; }
        &.-wide #left { width: 68%; }
        #right { border-left: solid $foreground 15%; }
        #form { padding: 0 1; height: 1fr; }
        #lesson { display: none; height: auto; padding: 0 1; border-top: solid $foreground 15%; }
        &.-wide.-tall #lesson { display: block; }
        #about { margin-bottom: 1; }
        #more { height: 1; margin-top: 1; color: $text-primary; }
        #more:focus { text-style: bold reverse; }
        #order { height: auto; border-top: solid $foreground 15%; padding: 0 1; }
        #hint { height: 1; color: $foreground 60%; text-wrap: nowrap; text-overflow: ellipsis; }
        #hint.-bad { color: $text-error; }
        #command { width: 1fr; height: auto; max-height: 3; color: $text-success; }
        #go { height: auto; }
        #estimate { width: 1fr; height: auto; max-height: 2; padding-right: 1; }
        #start { width: 14; min-width: 14; }
        #broken { display: none; height: 1fr; padding: 1 3; }
        &.-broken #choose, &.-broken #order { display: none; }
        &.-broken #broken { display: block; }
    }
    """
    BINDINGS = [
        Binding("ctrl+s", "start", "Start"),
        Binding("ctrl+o", "data", "Data"),
        Binding("f6", "look", "Text"),
        Binding("ctrl+t,f8", "more", "Advanced"),
        Binding("ctrl+y", "copy", "Copy command"),
        hidden("down", "app.focus_next", "Next"),
        hidden("up", "app.focus_previous", "Back"),
        hidden("escape", "presets", "Presets"),
        Binding("r", "reload", "Read again"),
        Binding("e", "edit", "Edit the file"),
    ]
    COMMON = (*LIMITS, "batch_size", "learning_rate", "dropout", "eval_interval")
    COSTLY = {"n_layer", "n_head", "n_embd", "block_size", "batch_size", "micro_batch", "vocab_size", "data",
              "bias", "qkv_bias", "optimizer", "dropout", "checkpoint_activations"}
    NO_MATTER = HARMLESS | {"run", "data"}       # to the loss that a preset usually comes to
    ELSEWHERE = ("preset", "presets", "level", "data", "out_dir", "resume")  # not among the advanced

    def __init__(self):
        super().__init__()
        self.preset = ""
        self.drawn = None                        # the presets' columns, and the speeds they go by
        self.edited = {}                         # field: what was typed
        self.is_own_level = False                # whether somebody chose it; else it is the preset's
        self.found = {}                          # field: what is wrong
        self.cost = {}                           # of what was edited, as gpt.py says; {}: not asked
        self.answers = {}                        # flags: what gpt.py said of the preset, and of the text
        self.taken = None                        # the flags of the answer that stands in the fields
        self.looked_at = {}                      # flags that say which text: what gpt.py says of it

    def body(self):
        yield Words(id="broken")
        with Horizontal(id="choose"):
            with Vertical(id="left"):
                yield DataTable(id="recipes", cursor_type="row", cell_padding=1)
                with VerticalScroll(id="look", can_focus=False):
                    yield Preview()
            with Vertical(id="right"):
                with VerticalScroll(id="form", can_focus=False):
                    yield Words(id="about")
                yield Words(id="lesson")
        with Vertical(id="order"):
            yield Words(id="hint")
            yield Words(id="command")
            with Horizontal(id="go"):
                yield Words(id="estimate")
                yield Button("▶ Start", id="start", variant="success", compact=True, disabled=True)

    def on_mount(self):
        self.query_one("#recipes").focus()
        self.query_one("#about", Words).put("reading the presets …")
        self.action_reload()

    # what there is

    @work(exclusive=True)
    async def action_reload(self):
        trouble = await self.app.read_presets()
        if trouble:
            self.broken(trouble)
            return
        self.remove_class("-broken")
        table = self.query_one("#recipes", DataTable)
        names = list(self.app.catalog.presets)
        if self.preset not in names:
            self.preset = names[table.cursor_row] if 0 <= table.cursor_row < len(names) else names[0]
        self.fill_table()
        if not self.has_form:
            await self.mount_fields()
        self.refresh_bindings()                  # whose keys need the fields
        if self.has_form:
            self.choose(self.preset)
            self.show()

    @property
    def has_form(self):
        "It comes with the presets, and goes while the app ends: whoever has waited for something asks again."
        return bool(self.query("#level"))

    def titles(self):
        "The columns of the presets for which there is room."
        titles = ["preset", "here"]
        if self.size.width >= ROOMY:
            titles = ["preset", "weights", "memory", "here"]
        if self.is_wide:
            titles += ["context", "for"]
        return titles

    def show(self):
        super().show()
        if self.drawn != (self.titles(), self.app.measured()):
            self.fill_table()
            if self.has_form:
                self.estimate()
                self.look_at_data()

    def fill_table(self):
        table = self.query_one("#recipes", DataTable)
        titles = self.titles()
        self.drawn = titles, self.app.measured()
        catalog = self.app.catalog
        presets = catalog.presets if catalog else self.names_at_once()
        with self.prevent(DataTable.RowHighlighted):  # nobody has chosen another preset
            table.clear(columns=True)
            for title in titles:
                table.add_column(title, key=title)
            for name, about in presets.items():
                cells = self.cells(name, about, catalog.recipe(name) if catalog else {})
                table.add_row(*[cells[title] for title in titles], key=name)
            if self.preset in presets:
                table.move_cursor(row=list(presets).index(self.preset))

    def cells(self, name, about, cost):
        "What the table says of a preset, by column."
        return {
            "preset": Text(clean(name), "bold"),
            "weights": Text(short(number(cost.get("parameters"))), justify="right"),
            "memory": Text(size(number(cost.get("memory"))), justify="right"),
            "here": self.verdict(cost),
            "context": Text(str(cost.get("block_size", "—")), justify="right"),
            "for": Text(clean(about.get("for", ""))),
        }

    def renew_row(self):
        "Another level, another text: the chosen preset takes something else."
        table = self.query_one("#recipes", DataTable)
        cells = self.cells(self.preset, self.app.catalog.presets[self.preset], self.base())
        for title in self.drawn[0]:
            table.update_cell(self.preset, title, cells[title])

    def names_at_once(self):
        "The presets by name: to say what they take costs gpt.py a moment."
        with contextlib.suppress(OSError, ValueError):
            presets = json.loads(self.presets_file().read_text(encoding="utf-8"))
            if isinstance(presets, dict) and all(isinstance(about, dict) for about in presets.values()):
                return presets
        return {}

    def verdict(self, cost):
        "How long it takes on this machine, or whether it can be trained here at all."
        word, hue = "yes", "success"
        if not cost:
            word, hue = "…", "primary"
        elif not cost.get("fits"):
            word, hue = "no", "error"
        else:
            seconds, _ = self.time_for(cost)
            if seconds:
                word = in_words(seconds)
            if seconds and seconds > LONG_HOURS * 3600:
                hue = "warning"
        return Text(word, self.app.color(f"text-{hue}"))

    def time_for(self, values, in_text=None):
        "-> the seconds that such a training takes here, about, and how that is known; or None."
        clock = 60 * (number(values.get("max_minutes")) or 0)
        tokens = tokens_to_see(values, in_text)
        flops = number(values.get("flops_per_token"))
        speed, how = self.app.speed_for(flops, number(values.get("usual_flops_per_s")))
        if not tokens or not flops or not speed:
            return clock or None, ""
        seconds = tokens * flops / speed
        if 0 < clock < seconds:
            return clock, ""
        return seconds, how

    def broken(self, message):
        "Instead of all else: what is wrong with presets.json, and where."
        mend = ["\nNothing was started. Mend it, then press ", ("r", KEY), ". ", ("e", KEY),
                " opens it in your editor."]
        self.query_one("#broken", Words).put(
            ("The presets can't be read.\n\n", "bold $text-error"), f"{clean(message)}\n\n",
            *self.place(message), *mend,
        )
        self.add_class("-broken")
        self.set_focus(None)
        self.refresh_bindings()

    def place(self, message):
        "The lines of presets.json around the one that the message names."
        found = re.search(r"line (\d+) column (\d+)", message)
        if not found:
            return []
        try:
            lines = self.presets_file().read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return []
        line = int(found[1])
        column = int(found[2])
        parts = []
        for i in range(max(1, line - 3), min(len(lines), line + 1) + 1):
            parts.append((f"{i:5} | {clean(lines[i - 1])}\n", "bold" if i == line else DIM))
            if i == line:
                parts.append((f"      | {' ' * (column - 1)}^\n", "bold $text-error"))
        return parts

    def presets_file(self):
        return self.app.gpt.with_name("presets.json")

    async def mount_fields(self):
        fields = [self.field(name) for name in ("level", "data", *self.COMMON, "run")]
        await self.query_one("#form").mount_all([*fields, Button("▸ advanced", id="more", compact=True)])

    def field(self, name, classes=None):
        about = self.app.catalog.fields.get(name, {"choices": None, "type": "str"})
        choices = about["choices"]
        if about["type"] == "bool":
            choices = ["true", "false"]
        box = Knob("", choices, id=name) if choices else Input(id=name, compact=True)
        return Field(name, box, classes=classes)

    def boxes(self):
        return self.query("Field Input, Field Knob")

    @on(DataTable.RowHighlighted, "#recipes")
    def moved(self, event):
        is_known = self.app.catalog and self.has_form
        if is_known and event.row_key and event.row_key.value and event.row_key.value != self.preset:
            self.choose(event.row_key.value)

    @on(DataTable.RowSelected, "#recipes")
    def picked(self):
        self.query_one("#start").focus()

    def choose(self, preset):
        "Another preset: its level and its values. The data stays."
        self.preset = preset
        self.cost = {}
        self.is_own_level = False
        self.taken = None
        self.edited = {name: text for name, text in self.edited.items() if name == "data"}
        about = self.app.catalog.presets[preset]
        with self.prevent(Knob.Changed):
            self.query_one("#level", Knob).value = about.get("level", "char")
        made_for = f"for {clean(about['for'])}" if about.get("for") else ""
        self.query_one("#about", Words).put(
            (clean(preset), "bold"), f"  {clean(about.get('about', ''))}\n", (made_for, DIM)
        )
        self.fill()

    # the form

    @property
    def level(self):
        return self.query_one("#level", Knob).value

    @property
    def run_name(self):
        return self.query_one("#run", Input).value

    def base(self):
        "The recipe, as it is without edits."
        return self.app.catalog.recipe(self.preset, self.level)

    def fill(self):
        "Show each field's value: what was typed, else the recipe's."
        base = {**self.base(), "run": self.fresh_name()}
        with self.prevent(Input.Changed, Knob.Changed):
            for box in self.boxes():
                is_typed_into = box.has_focus and box.id != "run"  # what is being typed is not taken away
                if box.id != "level" and not is_typed_into:
                    box.value = self.edited.get(box.id, written(base.get(box.id, "")))
        self.check()

    def fresh_name(self):
        "For the next run: preset, level, data and, from the second one on, a number."
        name = f"{self.preset}-{self.level}"
        data = Path(self.edited.get("data", "")).stem[:50]
        if data:
            name += f"-{data}"
        name = re.sub(r"[^\w.-]+", "-", name)
        return self.app.fresh_folder(name).name

    def renew_name(self):
        "Unless somebody typed one: runs may have begun meanwhile."
        if "run" not in self.edited:
            with self.prevent(Input.Changed):
                self.query_one("#run", Input).value = self.fresh_name()

    def on_screen_resume(self):
        if not self.has_form:
            return
        # What was wrong with a text may be mended, or it is fetched by now: that is asked again.
        self.looked_at = {flags: text for flags, text in self.looked_at.items() if "why" not in text}
        answers = self.answers.items()
        self.answers = {flags: answer for flags, answer in answers if "why" not in (answer[1] or {})}
        self.renew_name()
        self.check()

    @on(Knob.Changed, "#level")
    def another_level(self):
        self.is_own_level = True
        self.renew_row()
        self.fill()

    @on(Input.Changed)
    @on(Knob.Changed)
    def changed(self, event):
        name = event.control.id
        if name == "level":
            return
        if event.value == written(self.base().get(name, "")):
            self.edited.pop(name, None)
        else:
            self.edited[name] = event.value
        if name == "data":
            self.renew_name()
        self.check()

    def texts(self):
        "Each field of the command line: what was typed, else the recipe's."
        base = self.base()
        names = [name for name in self.app.catalog.fields if name in base]
        return {name: self.edited.get(name, written(base[name])) for name in names}

    def numbers(self):
        "What is typed of how much there is to do."
        texts = self.texts()
        return {name: number_of(texts[name]) for name in WORK if name in texts}

    def problems(self):
        found = self.app.catalog.problems(self.texts())
        run = self.run_name
        data = self.texts().get("data", "")
        looks_like_a_path = re.search(r"[\\/]|\.\w+$", data) and ":" not in data[2:]
        if not fit_for_a_name(run):
            found["run"] = "run: a name without / \\ : * ? \" < > |"
        elif self.app.is_taken(self.app.root / run):
            found["run"] = f"run: there is one of the name {run}"
        if not data:
            found["data"] = "data: a text file, a folder made by data.py, a name, or builtin"
        elif looks_like_a_path and not glob.glob(data) and not os.path.exists(data):
            found["data"] = f"data: there is no {data}"
        return found

    @property
    def goes_by_rule(self):
        "Whether size, steps and, unless somebody chose it, level follow from text and minutes."
        return "rule" in self.app.catalog.presets[self.preset]

    def recipe_flags(self):
        "All but the folder."
        given = {"preset": self.preset, "level": self.level, **self.edited}
        if self.goes_by_rule and not self.is_own_level:
            given.pop("level")
        given.pop("run", None)
        if any(name in self.edited for name in LIMITS):
            texts = self.texts()                 # one of them unsets the others: so name all
            given.update({name: texts[name] for name in LIMITS if number_of(texts[name])})
        return as_flags(given)

    def flags(self):
        return [*self.recipe_flags(), *as_flags({"out_dir": str(self.app.root / self.run_name)})]

    def command(self):
        return command_line([*self.app.trainer(), *self.flags()])

    def check(self):
        "Marks, the line of what is wrong, the command and the estimate."
        self.found = self.problems()
        self.mark()
        self.query_one("#start").disabled = bool(self.found)
        self.query_one("#command", Words).put(f"$ {clean(self.command())}")
        more = len(self.app.catalog.fields) - len(self.COMMON) - len(self.ELSEWHERE)
        opened = bool(self.query(".extra"))
        self.query_one("#more", Button).label = "▾ advanced" if opened else f"▸ advanced: {more} more"
        self.cost = {}
        if self.is_costly() and not self.found:
            self.estimate_edited()
        self.estimate()
        self.look_at_data()

    def mark(self):
        "Show which fields are wrong, which are edited, and in a line what is wrong."
        for box in self.boxes():
            box.set_class(box.id in self.found, "-invalid")
            box.parent.set_class(box.id in self.edited, "-edited")
        self.hint()

    def is_costly(self):
        "Whether what was edited changes size or memory."
        return self.goes_by_rule or not self.COSTLY.isdisjoint(self.edited)

    def hint(self):
        "What is wrong with the field that has the focus, or with another; else what the field is."
        here = self.focused.id if self.focused else None
        wrong = self.found.get(here) or next(iter(self.found.values()), None)
        text = "enter: on to Start    tab: change it first"
        if self.has_class("-look") and not self.has_room_for_text:
            text = "esc: back to the presets"
        if wrong:
            text = wrong
        elif here in self.app.catalog.fields:
            text = f"{here}: {self.app.catalog.fields[here]['help']}"
        line = self.query_one("#hint", Words)
        line.set_class(bool(wrong), "-bad")
        line.put(clean(text))
        self.query_one("#lesson", Words).put(*self.lesson(here))

    def lesson(self, name):
        "Where there is room: what the field with the focus does to a training, or what the preset is."
        base = {**self.base(), **self.cost}
        if name not in self.app.catalog.fields:
            shape = "{n_layer} layers, {n_head} heads, {n_embd} wide; it sees {block_size} tokens at once."
            with contextlib.suppress(KeyError):  # what a preset does not say can't be told
                yield (f"{self.preset}\n", KEY)
                yield shape.format_map(base)
            yield "\n\nEvery field above is a flag of the command below. "
            yield from [("tab", KEY), " goes into them, ", ("ctrl+t", KEY), " shows the others."]
            return
        usual = written(base.get(name, ""))
        yield (f"{name}\n", KEY)
        yield f"{clean(LESSONS.get(name) or self.app.catalog.fields[name]['help'])}\n"
        if usual:
            yield (f"\nin this preset: {clean(usual)}", DIM)

    def on_descendant_focus(self):
        if self.app.catalog and self.has_form:
            self.hint()

    # what it will take

    @work(exclusive=True, group="estimate")
    async def estimate_edited(self):
        "The size of what was edited, said by the program that knows."
        await asyncio.sleep(0.4)                 # each key typed meanwhile begins it anew
        if not self.has_form:
            return
        flags = tuple(self.recipe_flags())
        if flags not in self.answers:
            code, out, said = await self.app.ask("presets", "--json", *flags)
            if not self.has_form or flags != tuple(self.recipe_flags()):
                return                           # meanwhile something else was chosen
            try:
                answer = json.loads(out)
                self.answers[flags] = answer["presets"][self.preset], answer.get("data")
            except (ValueError, KeyError, TypeError):
                await self.keep_text(self.data_flags(), self.unread(said))
                return
        about, text = self.answers[flags]
        if self.goes_by_rule and flags != self.taken:
            self.taken = flags
            self.take_recipe(about)
        self.cost = about.get(self.level, {})
        self.estimate()
        if text:
            await self.keep_text(self.data_flags(), dict(text))

    def take_recipe(self, about):
        "What the rule makes of this text and these minutes stands in the fields, as if it were a preset."
        recipe = self.app.catalog.presets[self.preset]
        for level in self.app.catalog.fields["level"]["choices"]:
            typed = {name: recipe[level][name] for name in self.edited if name in recipe[level]}
            recipe[level] = {**recipe[level], **about.get(level, {}), **typed}  # what is typed stays an edit
        if not self.is_own_level:
            with self.prevent(Knob.Changed):
                self.query_one("#level", Knob).value = about["level"]
        self.renew_row()
        self.fill()

    def estimate(self):
        base = {**self.base(), **self.cost}
        needs = number(base.get("memory"))
        memory = number(self.app.catalog.device.get("memory"))
        fits = ("does not fit", "bold $text-error")
        seconds, how = self.time_for({**base, **self.numbers()}, self.tokens_in_text())
        is_long = seconds and seconds > LONG_HOURS * 3600
        if base.get("fits"):
            fits = ("fits", "bold $text-warning" if is_long else "bold $text-success")
        parts = []
        if self.is_costly() and not self.cost:
            parts.append("before your changes: ")
        if self.goes_by_rule:
            parts.append("about ")
        parts.append((short(number(base.get("parameters"))), "bold"))
        parts.append(f" weights · {size(needs)} of {size(memory)} ")
        values = self.numbers()
        tokens = (values["batch_size"] or 0) * (values["block_size"] or 0)
        parts += [fits, f" · {short(tokens)} tokens a step"]
        if seconds:
            about = "about " if how else ""
            look = "bold $text-warning" if is_long else "bold"
            time = in_words(seconds).replace(" ", NO_BREAK)
            parts += [" · ", (f"{about}{time}", look), how]
        self.query_one("#estimate", Words).put(*parts, *self.expected(base))

    def expected(self, base):
        "The loss to come, where it is known: of this preset, level and data, without other edits."
        data = self.texts()["data"]
        expect = clean(base.get("expect") or "")
        bests = []
        for run in self.runs_like_it():
            if run.part("train").get("data") == data:
                bests.append(best_loss(run))
        bests = [loss for loss in bests if loss is not None]
        if expect.endswith(f" on {data}") and self.NO_MATTER.issuperset(self.edited):
            yield f" · {expect}"
        elif bests:
            yield f" · best so far {fixed(min(bests))}"

    def runs_like_it(self):
        "Earlier runs of this preset at this level, whose speed is known."
        like = []
        for run in self.app.runs.values():
            train = run.part("train")
            same = train.get("preset") == self.preset and train.get("level") == self.level
            if same and run.speed:
                like.append(run)
        return like

    # the text

    @property
    def has_room_for_text(self):
        return self.has_class("-wide") and self.has_class("-tall")

    def data_flags(self):
        "The flags that say which text, and how it is cut."
        texts = self.texts()
        names = "data", "vocab_size", "min_freq", "val_fraction"
        given = {name: texts[name] for name in names if name in texts}
        return tuple(as_flags({"level": self.level, **given}))

    def look_at_data(self):
        "Show the text that is named, once gpt.py has said what it is; each is asked for once."
        data = self.texts()["data"]
        flags = self.data_flags()
        if not self.has_room_for_text and not self.has_class("-look"):
            return
        if self.found:
            wrong = self.found.get("data")
            if wrong:
                self.query_one(Preview).put((clean(wrong), "$text-error"))
            return
        about = self.looked_at.get(flags)
        if not about:
            self.query_one(Preview).put((f"reading {clean(data)} …", DIM))
            if "data" not in self.edited:        # else it comes with the estimate
                self.ask_about_data(flags)
            return
        numbers = self.numbers()
        is_known = not numbers.get("max_minutes")  # by the clock nobody knows how much it will read
        seen = tokens_to_see(numbers, about.get("tokens")) if is_known else None
        self.query_one(Preview).tell(data, about, seen)

    def tokens_in_text(self):
        "Of the text that is named, if that is known by now."
        return self.looked_at.get(self.data_flags(), {}).get("tokens")

    @work(exclusive=True, group="look")
    async def ask_about_data(self, flags):
        await asyncio.sleep(0.4)                 # each key typed meanwhile begins it anew
        if not self.has_form:
            return
        await self.keep_text(flags, await self.about_data(flags))

    async def keep_text(self, flags, about):
        "Remember what gpt.py says of the text that these flags name, and show it."
        if not self.has_form:
            return
        if "not here yet" in str(about.get("why")):
            about["why"] = await self.why_not_here(self.texts()["data"], about["why"])
        self.looked_at[flags] = about
        if self.has_form:
            self.look_at_data()
            self.estimate()

    async def about_data(self, flags):
        "What gpt.py says of a text."
        code, out, said = await self.app.ask("presets", "--json", "--preset", self.preset, *flags)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return json.loads(out)["data"]
        return self.unread(said)

    def unread(self, said):
        return {"why": said.strip() or "it can't be read"}

    async def is_nowhere(self, data):
        "Whether nothing has this name, which gpt.py would find out when a run is begun."
        if os.path.exists(data) or ":" in data or data in await self.app.corpora():
            return False
        return "why" in await self.about_data(self.data_flags())  # else it is prepared, or several files

    async def why_not_here(self, name, why):
        "Of a text that is not prepared: whether it can be had, and whether it is fetched already."
        known = await self.app.corpora()
        if name not in known and ":" not in name:
            return NOWHERE
        if re.search(r"\b(\d+) of \1 files", known.get(name, "")):
            return "is fetched; it is prepared when training begins"
        return why

    def action_look(self):
        "The text in the place of the form, where there is no room for both."
        if self.has_class("-look"):
            self.action_presets()
            return
        self.add_class("-look")
        self.hint()
        self.look_at_data()

    def action_presets(self):
        "Back to them, from the fields or from the text."
        self.remove_class("-look")
        self.query_one("#recipes").focus()
        if self.app.catalog and self.has_form:
            self.hint()

    # keys

    def check_action(self, action, parameters):
        broken = self.has_class("-broken")
        if action in ("reload", "edit"):
            return broken
        if action == "look" and self.has_room_for_text:
            return False                         # it is there anyway
        if action in ("start", "data", "more", "copy", "look"):
            return bool(self.app.catalog) and self.has_form and not broken
        return True

    @on(Input.Submitted)
    def next_field(self):
        self.focus_next()

    @on(Button.Pressed, "#more")
    @work
    async def action_more(self):
        extra = self.query(".extra")
        if extra:
            await extra.remove()
            self.check()
            return
        rows = []
        for part in "ModelConfig", "TrainConfig":
            for field in self.app.catalog.fields.values():
                name = field["name"]
                if field["part"] == part and name not in (*self.COMMON, *self.ELSEWHERE):
                    rows.append(self.field(name, classes="extra"))
        await self.query_one("#form").mount_all(rows)
        self.fill()
        rows[0].query_one("Input, Knob").focus()

    @work
    async def action_data(self):
        options = [("", bits(("browse …", KEY), "  a file of your own"))]
        for path in sorted(Path().glob("*")):
            if path.suffix.lower() in TEXTS and path.is_file():
                options.append(self.offer(path.name, "in this folder"))
        pick = Pick("data: choose, or paste a path", options, paths=True)
        self.add_corpora(pick)                   # to know them takes a moment, in which one can type
        name = await self.app.push_screen_wait(pick)
        if name == "":
            name = await self.app.push_screen_wait(Browse())
        if name:
            self.query_one("#data", Input).value = name
            self.query_one("#data").focus()

    @work
    async def add_corpora(self, pick):
        corpora = await self.app.corpora()
        pick.add([self.offer(name, about) for name, about in corpora.items()])

    def offer(self, name, about):
        "A line of the list of texts."
        return name, bits((f"{clean(name):16} ", "bold"), (about, DIM))

    def action_copy(self):
        self.app.copy(self.command())

    def action_edit(self):
        path = self.presets_file()
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            with self.app.suspend():
                subprocess.run([*shlex.split(editor), str(path)])
        except Exception as e:                   # Windows, a browser, no such editor
            self.notify(f"{path}: {e}", severity="warning")
            return
        self.action_reload()

    @on(Button.Pressed, "#start")
    @work(exclusive=True, group="start")
    async def action_start(self):
        self.check()                             # the disk may have changed
        data = self.edited.get("data")
        if data and not self.found and await self.is_nowhere(data):
            self.found = {"data": f"data: {data} {NOWHERE}"}
            self.mark()
            self.query_one("#data").focus()
        if self.found:
            return
        base = {**self.base(), **self.cost}
        if not base.get("fits", True):
            text = f"{self.preset} takes about {size(number(base.get('memory')))} to train: more than " \
                "there is here, so it would fail, or take very long."
            if not await self.app.push_screen_wait(Ask("too large?", text, s="start it all the same")):
                return
        flags = self.flags()
        folder = self.app.root / self.run_name
        self.edited.pop("run", None)
        self.app.launch(folder, flags)
        self.fill()
