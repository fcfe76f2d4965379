"""What the screens share: the frame around each of them, the boxes that ask, and the knobs."""
import gc
import os
from pathlib import Path

from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.reactive import reactive
from textual.screen import ModalScreen, Screen
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Footer, Input, Label, OptionList, Static, TextArea
from textual.widgets.option_list import Option

from runs import LIVE, clean
from screens.basics import (
    COLORS, DIM, KEY, ROOMY, SMALLEST_HEIGHT, SMALLEST_WIDTH, WIDE, Words, bits, button, hidden, number_of,
)


class Page(Screen):
    "One of the four screens: tabs and news above, keys below; word of it if the terminal is too small."

    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (ROOMY, "-narrow"), (WIDE, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (20, "-low"), (32, "-tall")]
    ESCAPE_TO_MINIMIZE = False
    BINDINGS = [Binding("question_mark,f1", "app.help", "Help")]
    had_focus = None                             # the widget that had it, while all is hidden
    KEYED = ()                                   # classes of widgets of the page that have keys of their own

    def compose(self):
        tabs = Words(id="tabs")
        tabs.auto_links = False                  # they look like tabs
        with Horizontal(id="bar"):
            yield tabs
            yield Words(id="news")
        with Vertical(id="body"):
            yield from self.body()
        yield Words(id="small")
        yield Footer(compact=True)

    def on_mount(self):
        self.call_after_refresh(gc.freeze)       # looking for garbage in what stays makes keys wait for 80 ms

    def on_resize(self, event):
        width, height = event.size
        was_small = self.has_class("-small")
        is_small = width < SMALLEST_WIDTH or height < SMALLEST_HEIGHT
        if is_small and not was_small:
            self.had_focus = self.focused        # what is hidden loses it
        elif was_small and not is_small and self.had_focus:
            self.call_after_refresh(self.had_focus.focus)
        self.set_class(is_small, "-small")
        self.query_one("#small", Words).put(
            f"This terminal is {width}×{height}; it takes {SMALLEST_WIDTH}×{SMALLEST_HEIGHT}.\n"
            "Enlarge the window or shrink the font (Ctrl -).\n"
            "Without screens: python gpt.py train\n\nctrl+q quits"
        )
        self.query_one(Footer).show_command_palette = width >= WIDE
        self.call_after_refresh(self.refreshed)

    def on_descendant_focus(self):
        self.show_tabs()

    def on_descendant_blur(self):
        self.show_tabs()

    def on_screen_resume(self):
        self.refreshed()

    @property
    def is_wide(self):
        return self.size.width >= WIDE

    def refreshed(self):
        "Show what is new, once there is something to show it in."
        if self.is_mounted:
            self.show()

    def show(self):
        "Bring all that is shown up to date."
        self.show_tabs()
        self.query_one("#news", Words).put(self.news())

    def show_tabs(self):
        "The screens, each with the key that leads there from where the focus is."
        tabs = [(" gpt ", "bold $background on $primary"), " "]
        for i, (name, title) in enumerate(self.app.TABS.items(), 1):
            key = f"F{i + 1}" if self.is_typed_into else i
            look = "bold $foreground on $background" if name == self.app.current_mode else DIM
            tabs.append(button(f" {key} {title} ", f"app.switch_mode({name!r})", look))
        self.query_one("#tabs", Words).put(*tabs)

    @property
    def is_typed_into(self):
        "Whether digits and letters go into a field instead of being keys."
        here = self.focused
        return isinstance(here, (Input, TextArea)) or isinstance(here, Knob) and here.free

    def news(self):
        "Of what trains now; without that, the machine."
        live = [run for run in self.app.runs.values() if run.state in LIVE]
        width = self.query_one("#news").content_size.width
        if not live:
            machine = self.app.machine
            if len(machine) > width:
                machine, _, _ = machine.partition(" · ")  # without its memory
            return bits((machine, DIM))
        run = max(live, key=lambda r: (r is self.app.chosen, r.when))
        more = f" and {len(live) - 1} more" if len(live) > 1 else ""
        state = f"{more} {run.state} {run.done:.0%}"
        dot = ("● ", f"$text-{COLORS[run.state]}")
        room = max(3, width - len("● ") - len(state))
        words = bits(dot, bits(run.name).truncate(room, ellipsis=True), (state, DIM))
        return words.stylize(Style.from_meta({"@click": f"app.watch_folder({str(run.folder)!r})"}))


class Box(ModalScreen):
    "A window over a page; esc closes it."

    DEFAULT_CSS = """
    Box {
        align: center middle;
        & > VerticalScroll {
            width: 74; max-width: 96%; height: auto; max-height: 90%; padding: 0 2;
            border: round $primary; background: $surface;
            border-title-color: $text-accent; border-title-style: bold;
        }
        Input { margin: 1 0; }
        OptionList { height: auto; max-height: 18; border: none; background: $surface; padding: 0; }
        .bad { color: $text-error; }
    }
    """
    BINDINGS = [("escape", "dismiss", "Cancel")]

    def __init__(self, title, *widgets, scrolls=False):
        super().__init__()
        self.frame = VerticalScroll(*widgets, can_focus=scrolls)
        self.frame.border_title = title

    def compose(self):
        yield self.frame


class Ask(Box):
    "A question and its answers, each a key -> the key, or None."

    def __init__(self, title, text, **answers):
        self.answers = answers
        options = []
        for key, words in {**answers, "esc": "cancel"}.items():
            options.append(Option(bits((f"{key:>6}  ", KEY), words), id=key))
        super().__init__(title, Static(text, markup=False), OptionList(*options, compact=True))

    def on_mount(self):
        self.query_one(OptionList).highlighted = 0

    def on_key(self, event):
        if event.key in self.answers:
            event.stop()
            self.dismiss(event.key)

    def on_option_list_option_selected(self, event):
        self.dismiss(None if event.option_id == "esc" else event.option_id)


class Leave(Ask):
    "Whether to quit: the key that asked answers, too."

    BINDINGS = [hidden("ctrl+c", "dismiss('q')", "Quit")]


class Enter(Box):
    "A question to be answered in words; problem(words) says what is wrong with them, or nothing."

    def __init__(self, title, value, problem):
        self.problem = problem
        super().__init__(title, Input(value, compact=True), Label("", classes="bad", markup=False))

    def on_input_changed(self, event):
        self.query_one(Label).update(self.problem(event.value) or "")

    def on_input_submitted(self, event):
        if not self.problem(event.value):
            self.dismiss(event.value)


class Pick(Box):
    "A list to choose from, narrowed down by typing: (id, what is shown) -> id, or None."

    BINDINGS = [hidden("down", "move('down')", "Next"), hidden("up", "move('up')", "Back")]

    def __init__(self, title, options, paths=False):
        self.options = options
        self.paths = paths                       # whether a path may be typed or pasted instead
        self.list = OptionList(compact=True)
        super().__init__(title, Input(placeholder="type to narrow down", compact=True), self.list)

    def on_mount(self):
        self.on_input_changed()

    def add(self, options):
        "More to choose from, which was not known at once."
        known = {option for option, _ in self.options}
        self.options += [(option, shown) for option, shown in options if option not in known]
        if self.is_attached:
            at = self.list.highlighted
            self.on_input_changed()
            self.list.highlighted = at

    def on_input_changed(self):
        typed = self.query_one(Input).value
        words = typed.lower().split()
        self.list.clear_options()
        for option, shown in self.options:
            text = str(shown).lower()
            if all(word in text for word in words):
                self.list.add_option(Option(shown, id=option))
        if not self.list.option_count:
            self.list.add_option(self.other(typed))
        self.list.highlighted = 0

    def other(self, typed):
        "What is offered for words that are in no line of the list."
        path = Path(os.path.expanduser(typed.strip().strip("'\"")))
        if self.paths and os.path.exists(path):
            return Option(bits(("use ", KEY), clean(path)), id=str(path))
        what = "nothing" if not self.paths else "no file and nothing"
        return Option(bits((f"there is {what} of that name", DIM)), disabled=True)

    def action_move(self, where):
        getattr(self.list, f"action_cursor_{where}")()

    def on_input_submitted(self):
        self.list.action_select()

    def on_option_list_option_selected(self, event):
        self.dismiss(event.option_id)


class Help(Box):
    "The keys that work here, and what the screen is for."

    BINDINGS = [("question_mark,f1,q,enter", "dismiss", "Close")]

    def __init__(self, page, keys):
        lines = []
        for key, words in keys:
            lines += [(f"{key:>14}  ", KEY), f"{words}\n"]
        super().__init__("help", Static(bits(" ".join(page.HELP.split()), "\n\n", *lines)), scrolls=True)


class Knob(Widget, can_focus=True):
    "A value out of a row of values: arrows step, a click picks, and where it is free a number can be typed."

    DEFAULT_CSS = """
    Knob { width: 1fr; height: 1; }
    Knob:focus { background: $primary 30%; }
    """
    BINDINGS = [
        hidden("left,minus", "turn(-1)", "Less"),
        hidden("right,plus,space", "turn(1)", "More"),
        hidden("up", "app.focus_previous", "Back"),
        hidden("down", "app.focus_next", "Next"),
    ]
    value = reactive("", init=False)
    typed = reactive("")                         # a number on its way
    auto_links = reactive(False)                 # what can be clicked looks as it is

    class Changed(Message):
        def __init__(self, knob, value):
            super().__init__()
            self.knob = knob
            self.value = value

        @property
        def control(self):
            return self.knob

    def __init__(self, value, options, free=False, **more):
        super().__init__(**more)
        self.options = [str(option) for option in options]
        self.free = free
        self.set_reactive(Knob.value, str(value))

    def render(self):
        if self.free:
            shown = f"{self.typed}▏" if self.typed else self.value
            return bits(button("◂ ", "turn(-1)"), (shown, "bold"), button(" ▸", "turn(1)"))
        parts = []
        for option in self.options:
            look = "bold $background on $primary" if option == self.value else ""
            parts.append(button(f" {option} ", f"pick({option!r})", look))
        return bits(*parts)

    def watch_value(self):
        self.typed = ""
        self.post_message(self.Changed(self, self.value))

    def action_turn(self, by):
        "A row of words goes round; numbers end at their ends."
        if self.free:
            order = sorted({*self.options, self.value}, key=float)
            at = order.index(self.value) + by
            self.value = order[max(0, min(len(order) - 1, at))]
        else:
            at = self.options.index(self.value) + by
            self.value = self.options[at % len(self.options)]

    def action_pick(self, option):
        self.value = option

    def on_key(self, event):
        if self.free and event.is_printable and event.character in "0123456789.":
            self.typed += event.character
        elif self.typed and event.key == "backspace":
            self.typed = self.typed[:-1]
        elif self.typed and event.key == "enter":
            self.on_blur()
        else:
            return
        event.stop()

    def on_blur(self):
        typed = self.typed
        self.typed = ""
        if number_of(typed) is not None:
            self.value = typed


class Field(Horizontal):
    "A value with its name before it."

    DEFAULT_CSS = """
    Field {
        height: 1;
        Label { width: 15; color: $foreground 60%; }
        Input { width: 1fr; height: 1; }
        &:focus-within Label { color: $text-accent; text-style: bold; }
        &.-edited Label { color: $text-primary; text-style: bold; }
    }
    """

    def __init__(self, label, box, **more):
        super().__init__(Label(label), box, **more)
