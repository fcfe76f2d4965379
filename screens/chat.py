"""Chat, the fourth screen: begin a text, let the model go on, look at what it thought."""
import itertools
import json
import os
import time
from pathlib import Path

from textual import on, work
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, TextArea

from runs import clean, fixed
from screens.basics import DIM, KEY, SHAPE, Words, best_loss, bits, hidden, number_of
from screens.choice import Choice
from screens.inside import Inside
from screens.shared import Enter, Field, Knob, Page, Pick
from screens.talk import KNOBS, MODE, SETTINGS
from screens.turn import EXPECTED, Turn, surprise, visible
from screens.voice import Voice


class Prompt(TextArea):
    "Enter sends, ctrl+j is a new line, up in an empty box brings the last text back."

    BINDINGS = [
        hidden("enter", "screen.send", "Send", priority=True),
        hidden("ctrl+j,shift+enter,alt+enter", "insert('\\n')", "New line", priority=True),
        Binding("f7", "screen.inside", "Inside", priority=True),  # a text area selects with these two
        Binding("f6", "screen.beside", "Two", priority=True),
    ]

    def action_insert(self, text):
        self.insert(text)

    def action_cursor_up(self, select=False):
        if self.text:
            super().action_cursor_up(select)
        else:
            self.screen.action_edit()


class Chat(Page):
    HELP = """The model goes on with the text you begin. enter in an empty box: it writes on. esc stops it;
esc again leaves the box; there single keys work: x for the X-ray, then ← → from token to token, and i to
look inside one: what each layer would have said, and where its heads looked. F6 lets two answer at once."""
    CSS = """
    Chat {
        #peek { display: none; height: 3; padding: 0 1; text-wrap: nowrap; }
        #peek, #inside { border-top: solid $foreground 15%; }
        #chat.-xray #peek { display: block; }
        #inside { height: 8; padding: 0 1; }
        #chat.-inside #inside { display: block; }
        #chat.-inside #peek { display: none; }
        #voices { height: 1fr; }
        Voice.second { border-left: solid $foreground 15%; }
        #controls { width: 43; display: none; padding: 0 1; border-left: solid $foreground 15%; }
        #controls Label { width: 19; }
        #lesson { display: none; border-top: solid $foreground 15%; }
        &.-tall #lesson { display: block; }
        &.-wide #controls, #chat.-knobs #controls { display: block; }
        #prompt {
            height: 5; border: round $foreground 30%; padding: 0 1; background: $background;
            border-title-color: $text-accent; border-subtitle-color: $foreground 60%;
        }
        #prompt:focus { border: round $primary; }
        &.-low #prompt, &.-flat #prompt { height: 4; }
    }
    """
    KEYED = (Prompt,)
    BINDINGS = [
        Binding("escape", "stop", "Stop"),
        hidden("escape", "leave", "Leave or enter the box"),
        Binding("ctrl+r", "again", "Again"),
        Binding("ctrl+g", "on", "More"),
        Binding("ctrl+o", "open", "Model"),
        Binding("ctrl+t,f8,t", "knobs", "Tune"),
        Binding("ctrl+l,x", "xray", "X-ray"),
        Binding("f7,i", "inside", "Inside"),
        Binding("f6,b", "beside", "Two"),
        Binding("ctrl+s", "save", "Save"),
        hidden("ctrl+n,f9,n", "new", "New"),
        hidden("v", "version(1)", "Next version of the answer"),
        hidden("V", "version(-1)", "Version before"),
        hidden("y", "copy", "Copy the reply"),
        hidden("e", "edit", "Edit and resend"),
        hidden("left", "token(-1)", "Token before"),
        hidden("right", "token(1)", "Next token"),
        hidden("l", "look(1, 0)", "Next layer"),
        hidden("L", "look(-1, 0)", "Layer before"),
        hidden("h", "look(0, 1)", "Next head"),
        hidden("H", "look(0, -1)", "Head before"),
    ]

    HIGH = 38                                    # rows from which there is room for Choice below the knobs
    LEAST = 0.001                                # what was less likely is not worth a look
    USUAL = "enter send · ctrl+j new line"

    def __init__(self):
        super().__init__()
        self.editing = []                        # the Turns that what is sent next replaces
        self.waits = False                       # whether what is typed is sent when the model is ready
        self.xray = False
        self.is_inside = False                   # whether it is shown what goes on in the model

    def body(self):
        with Horizontal(id="chat"):
            with Vertical():
                with Horizontal(id="voices"):
                    yield Voice()
                yield Words(id="peek")
                yield Inside()
            with VerticalScroll(id="controls", can_focus=False):
                yield from self.knobs()
                yield Words(id="lesson")
                yield Choice()
        yield Prompt(id="prompt", compact=True)

    def knobs(self):
        remembered = self.app.settings.get("sampling", {})
        for setting in MODE, *SETTINGS:
            label = setting.name.replace("_", " ")
            if setting.name == "seed":
                label = "seed (0: new)"
            value = remembered.get(setting.name, setting.default)
            yield Field(label, Knob(value, setting.choices, free=setting is not MODE, id=setting.name))
        yield Button("back to the usual", id="usual", compact=True)

    @on(Button.Pressed, "#usual")
    def set_back(self):
        for setting in MODE, *SETTINGS:
            self.query_one(f"#{setting.name}", Knob).value = str(setting.default)

    def on_mount(self):
        prompt = self.query_one(Prompt)
        prompt.border_subtitle = self.USUAL
        prompt.focus()
        self.set_interval(1 / 8, self.flush)
        self.set_interval(1, lambda: self.busy and self.show_choice())  # more often nobody could read

    # the voices

    @property
    def voices(self):
        return list(self.query(Voice))

    @property
    def voice(self):
        "The one that keys are about: where the focus is or the token under the cursor, else the first."
        voices = self.voices
        for voice in voices:
            if self.focused and voice in self.focused.ancestors:
                return voice
        for voice in voices:
            if any(turn.at is not None for turn in voice.turns):
                return voice
        return voices[0]

    @property
    def path(self):
        return self.voices[0].path

    @property
    def ready(self):
        return self.voices[0].ready

    @property
    def count(self):
        return self.voices[0].count

    @property
    def turns(self):
        return self.voices[0].turns

    @property
    def busy(self):
        return any(voice.busy for voice in self.voices)

    def on_screen_resume(self):
        while self.app.renamed:
            old, new = self.app.renamed.pop(0)
            for voice in self.voices:
                voice.moved(old, new)
        path = self.app.wanted
        self.app.wanted = None
        chosen = self.app.chosen
        if not path and not self.path and chosen:
            chosen.find_checkpoints()            # the best of the selected run
            if chosen.checkpoints:
                path = self.app.file_of(chosen, chosen.checkpoints[0])
        if path and (path != self.path or not self.ready):
            self.voices[0].load(path)
        elif path and not self.busy:
            self.voices[0].catch_up()
        super().on_screen_resume()

    def flush(self):
        if not self.busy:
            return
        with self.app.batch_update():
            came = [voice.flush() for voice in self.voices]
            if any(came):
                self.follow()

    def follow(self):
        "Of what comes the newest token is read, unless another one is under the cursor."
        turns = self.turns
        if self.xray and turns and turns[-1].tokens and not self.pointed():
            self.peek(turns[-1].tokens[-1])

    @on(Voice.Changed)
    def voice_changed(self):
        self.show()
        self.follow()
        self.refresh_bindings()
        if self.waits and not any(voice.is_loading for voice in self.voices):
            self.action_send()
        for voice in self.voices:
            if voice.inside:
                self.show_inside(voice)

    # what is shown

    def show(self):
        super().show()
        for voice in self.voices:
            voice.show()
        is_dialogue = self.knob("mode") == "dialogue"
        self.query_one(Prompt).border_title = "say something" if is_dialogue else "begin a text"
        self.query_one("#lesson", Words).put(*self.lesson())
        self.show_choice()

    def on_descendant_focus(self):
        super().on_descendant_focus()
        self.query_one("#lesson", Words).put(*self.lesson())

    def lesson(self):
        "Where there is room: what the knob with the focus does, else what the model is."
        name = self.focused.id if self.focused else None
        if name in KNOBS:
            yield (f"{name.replace('_', ' ')}\n", KEY)
            yield f"{KNOBS[name]}\n\n"
            yield ("← → or a number turns it", DIM)
            return
        run = self.app.runs.get(self.path.parent) if self.path else None
        if run:
            yield (f"{run.name}\n", KEY)
            yield run.shape(SHAPE)
            yield "\n"
        yield from [("ctrl+t", KEY), ": the knobs, each explained here"]

    def show_choice(self):
        "Where there is room: of the token under the cursor or of the newest, among what it was chosen."
        voice = self.voice
        turn = self.pointed() or next(iter(voice.turns[-1:]), None)
        choice = self.query_one(Choice)
        choice.display = self.size.height >= self.HIGH
        if turn and turn.tokens:
            choice.tell(turn, turn.voice.file[1])
        else:
            choice.nothing()

    # asking

    def knob(self, name):
        return self.query_one(f"#{name}", Knob).value

    def settings(self):
        values = {}
        for setting in SETTINGS:
            values[setting.name] = setting.type(float(self.knob(setting.name)))
        if not values["seed"]:
            values["seed"] = int.from_bytes(os.urandom(2), "big") + 1
        return values

    async def begin(self, turns, instead=None):
        "Let each voice answer: turns and what they replace, by voice. All of them by the same dice."
        self.replace([])
        self.point_nowhere()
        settings = self.settings()
        replaced = instead or {}
        for voice, turn in turns.items():
            await voice.begin(turn, settings, replaced.get(voice))
        self.refresh_bindings()

    @work
    async def action_send(self):
        if self.busy:
            self.notify("It is still writing: esc stops it")
            return
        prompt = self.query_one(Prompt)
        if not self.waits:                       # what waited goes to what was loaded for it
            for voice in self.voices:
                if prompt.text or not voice.ready:
                    voice.catch_up()
        able = [voice for voice in self.voices if voice.ready]
        if not able or any(voice.is_loading for voice in self.voices):
            self.waits = bool(prompt.text) and any(voice.is_loading for voice in self.voices)
            self.show()
            return
        self.waits = False
        text = prompt.text
        prompt.text = ""
        if not text:
            self.action_on()
            return
        instead = {turn.voice: turn for turn in self.editing}
        is_dialogue = self.knob("mode") == "dialogue"
        turns = {}
        for voice in able:
            turns[voice] = voice.new_turn(text, instead.get(voice), is_dialogue, self.xray)
        await self.begin(turns, instead)

    def check_action(self, action, parameters):
        if action in ("again", "on", "save", "edit", "copy", "new"):
            return bool(self.is_mounted and self.turns and not self.busy)
        if action == "version":
            return bool(self.turns and not self.busy and len(self.turns[-1].versions) > 1)
        if action == "beside":
            return not self.busy
        if action == "stop":
            return bool(self.busy)
        if action == "leave":
            return not self.busy
        if action == "token":
            return self.xray
        if action == "inside":
            return self.is_inside or bool(self.xray and self.turns)
        if action == "look":
            return self.is_inside
        return True

    def action_stop(self):
        for voice in self.voices:
            if voice.busy:
                voice.stop()

    def action_leave(self):
        said = self.voices[0].query_one("#said")
        chat = self.query_one("#chat")
        if chat.has_class("-knobs"):
            chat.remove_class("-knobs")
            self.query_one(Prompt).focus()
        elif self.focused is self.query_one(Prompt):
            self.replace([])
            said.focus()
        else:
            self.query_one(Prompt).focus()

    def answered(self):
        "The last turn of each voice that can answer."
        return {voice: voice.turns[-1] for voice in self.voices if voice.ready and voice.turns}

    @work
    async def action_again(self):
        "Another answer to the same. The one before is kept: v goes from one to the next."
        await self.begin({voice: turn.again() for voice, turn in self.answered().items()})

    def action_on(self):
        if self.busy:
            return
        self.replace([])
        self.point_nowhere()
        settings = self.settings()
        for voice, turn in self.answered().items():
            voice.ask(turn, settings)
        self.refresh_bindings()

    def action_version(self, by):
        self.point_nowhere()
        for voice in self.voices:
            voice.step(by)

    def action_edit(self):
        if not self.turns or self.busy:
            return
        last = self.turns[-1]
        prompt = self.query_one(Prompt)
        prompt.text = last.shown
        if last.stop:                            # of a dialogue: a line of its own
            prompt.text = last.shown.rstrip("\n")
        prompt.move_cursor(prompt.document.end)
        prompt.focus()
        self.replace(list(self.answered().values()))

    def replace(self, turns):
        "What is sent next stands in the place of these Turns."
        self.editing = turns
        what = "replaces the last answer · " if turns else ""
        self.query_one(Prompt).border_subtitle = f"{what}{self.USUAL}"

    @on(TextArea.Changed)
    def typed(self, event):
        if not event.text_area.text:             # nobody wants that text any more
            self.replace([])

    @work
    async def action_new(self):
        self.replace([])
        await self.query(Turn).remove()
        for voice in self.voices:
            voice.used = 0
        self.point_nowhere()
        self.show()
        self.refresh_bindings()

    # which models

    def checkpoints(self, first=None):
        "All that can be talked to, as lines of a list; those of a folder before all others."
        options = []
        runs = self.app.newest_first()
        for run in sorted(runs, key=lambda run: run.folder != first):
            for name in run.checkpoints:
                loss = best_loss(run)
                if name == "latest.pt":
                    loss = run.last_loss
                about = f"{run.shape('{level:5}')} val {fixed(loss)}"
                shown = bits((f"{run.name:24} ", "bold"), f"{name:10}", (about, DIM))
                options.append((str(run.folder / name), shown))
        return options

    @work
    async def action_open(self):
        voice = self.voice
        options = self.checkpoints()
        if not options:
            self.notify("There is no checkpoint yet: 1 trains a model", severity="warning")
            return
        path = await self.app.push_screen_wait(Pick("talk to", options))
        if path:
            voice.load(Path(path))

    @work
    async def action_beside(self):
        "A second voice beside the first, or no longer."
        first, *others = self.voices
        if others:
            await others[0].remove()
            self.query_one(Prompt).focus()
            self.show()
            return
        if not first.path:
            self.notify("There is no model yet to stand beside", severity="warning")
            return
        same = "", bits(("the same model ", "bold"), ("at another temperature", DIM))
        options = [option for option in self.checkpoints(first.path.parent) if option[0] != str(first.path)]
        path = await self.app.push_screen_wait(Pick("who answers beside it", [same, *options]))
        if path is None:
            return
        differs = {}
        if not path:
            temperature = await self.app.push_screen_wait(self.other_temperature())
            if not temperature:
                return
            differs = {"temperature": float(temperature)}
        second = Voice(differs, classes="second")
        second.load(Path(path) if path else first.path)
        await self.query_one("#voices").mount(second)
        self.show()

    def other_temperature(self):

        def problem(text):
            value = number_of(text)
            if value is None or not 0 <= value <= 10:
                return "a number from 0, where the likeliest is taken, to 10"

        here = float(self.knob("temperature"))
        return Enter("temperature on the right", f"{here + 0.4 if here <= 1 else here - 0.4:g}", problem)

    @on(Knob.Changed)
    def remember(self):
        names = [MODE.name, *(setting.name for setting in SETTINGS)]
        self.app.remember(sampling={name: self.knob(name) for name in names})
        self.show()

    def action_knobs(self):
        chat = self.query_one("#chat")
        if not self.is_wide:
            chat.toggle_class("-knobs")
        opened = self.is_wide or chat.has_class("-knobs")
        if chat.has_class("-knobs") and self.is_inside:  # there is no room for both
            self.action_inside()
        self.query_one("#temperature" if opened else "#prompt").focus()

    # the X-ray

    def action_xray(self):
        self.xray = not self.xray
        self.query_one("#chat").set_class(self.xray, "-xray")
        self.point_nowhere()
        for turn in self.query(Turn):
            turn.xray = self.xray
            turn.paint_all()
        if self.xray and self.turns and not self.busy:
            self.voices[0].query_one("#said").focus()
        self.follow()
        if self.is_inside:
            self.action_inside()
        self.refresh_bindings()

    def pointed(self):
        "The turn with the token under the cursor, or None."
        return next((turn for voice in self.voices for turn in voice.turns if turn.at is not None), None)

    def action_token(self, by):
        "From the token under the cursor; without one, from that end where the way begins."
        turns = self.voice.turns
        if not turns:
            return
        here = next((turn for turn in turns if turn.at is not None), turns[-1])
        at = here.at
        if at is None:
            at = -1 if by > 0 else len(here.tokens)
        self.point(here, at + by)

    def point_nowhere(self):
        "No token is under the cursor: what was read of one is gone."
        for turn in self.query(Turn):
            turn.point(None)
        self.query_one("#peek", Words).put(
            ("← → go from token to token, the mouse points at one: how likely it was, and what else", DIM)
        )
        inside = self.query_one(Inside)
        inside.about = []
        inside.nothing("← → choose a token: what each layer would have said, and where its heads looked.")
        self.show_choice()

    def on_mouse_move(self, event):
        at = event.style.meta.get("token")
        if self.xray and at is not None:
            chunk, _ = self.get_widget_at(*event.screen_offset)
            turn = chunk.parent
            if turn.at != at:
                self.point(turn, at)

    def point(self, turn, at):
        "Put the cursor on a token: what else could have stood there?"
        for other in self.query(Turn):
            if other is not turn:
                other.point(None)
        if not turn.tokens:
            return
        turn.point(max(0, min(len(turn.tokens) - 1, at)))
        turn.voice.scroll_to_row(turn.virtual_region.y + turn.row_of(turn.at))
        self.peek(turn.tokens[turn.at])
        self.show_choice()
        if self.is_inside:
            self.look_inside()

    def peek(self, token):
        parts = [(visible(token.text), "bold reverse")]
        if token.prob is None:
            parts.append("  no numbers")
        else:
            parts.append(f" {token.prob:.1%}")
        others = [(text, prob) for text, prob in token.others if text != token.text and prob >= self.LEAST]
        if others:
            parts.append("   instead: ")
        width = self.query_one("#peek").content_size.width or self.size.width - 2
        room = width - bits(*parts).cell_length
        for text, prob in others:
            other = bits((visible(text), "bold"), f" {prob:.1%}  ")
            room -= other.cell_length
            if room < 0:                         # a number cut in two would be another number
                break
            parts.append(other)
        self.query_one(Inside).about = parts
        legend = [("\nexpected: ", DIM)]
        for word, prob in EXPECTED.items():
            legend += [(f" {word} ", surprise(prob)), " "]
        legend += ["  ", ("← →", KEY), (" another token", DIM)]
        self.query_one("#peek", Words).put(*parts, *legend)

    # looking inside

    def action_inside(self):
        self.is_inside = not self.is_inside
        chat = self.query_one("#chat")
        chat.set_class(self.is_inside, "-inside")
        if self.is_inside:                       # it needs the columns
            chat.remove_class("-knobs")
        turns = self.voice.turns
        turn = self.pointed() or (turns[-1] if turns else None)
        if self.is_inside and turn and turn.tokens and not self.busy:
            self.voice.query_one("#said").focus()
            at = len(turn.tokens) - 1 if turn.at is None else turn.at
            self.call_after_refresh(self.point, turn, at)
        elif turn:
            turn.point(turn.at)                  # without the shades
        self.refresh_bindings()

    def look_inside(self):
        "Ask about the token under the cursor, unless an answer is on its way: then about it after that."
        turn = self.pointed()
        voice = turn.voice
        if self.busy:
            self.query_one(Inside).nothing("It is still writing.")
        elif not voice.looking:
            why = voice.look_inside(turn, turn.at)
            if why:
                self.query_one(Inside).nothing(why)

    def show_inside(self, voice):
        answer = voice.inside
        voice.inside = None
        turn = self.pointed()
        if not self.is_inside or not turn:
            return
        if answer["id"] != f"inside {id(turn)} {turn.at}":
            self.look_inside()                   # the cursor has gone on meanwhile
        elif answer["kind"] == "error":
            self.query_one(Inside).nothing(answer["message"])
        else:
            self.query_one(Inside).take(answer)
            self.action_look(0, 0)

    def action_look(self, layers, heads):
        "Another layer, another head."
        inside = self.query_one(Inside)
        turn = self.pointed()
        if inside.found and turn:
            inside.turn(layers, heads)
            turn.shade(inside.texts, inside.shares()[inside.at_head])

    # taking it along

    def action_copy(self):
        turns = self.voice.turns or self.turns
        self.app.copy(turns[-1].text())

    def action_save(self):
        "In the run's folder; where that was deleted, beside the other runs."
        folder = self.path.parent if os.path.isdir(self.path.parent) else self.app.root
        path = folder / time.strftime("chat-%Y%m%d-%H%M%S.txt")
        stretches = []                           # (whose, turns) of those that are of the same weights
        for voice in self.voices:
            for whose, turns in itertools.groupby(voice.turns, Turn.whose):
                stretches.append((whose, list(turns)))
        texts = []
        saved = []
        for whose, turns in stretches:
            if len(stretches) > 1:
                texts.append(f"== {whose} ==")
            for turn in turns:
                texts.append(turn.shown + turn.text())
                model = turn.weights[-1]         # "whose" names also those that began it
                said = {"model": str(model.path), "step": model.step, "whose": turn.whose()}
                said |= {"prompt": turn.sent, "reply": turn.text()}
                saved.append({**said, "settings": turn.settings})
        about = json.dumps({"turns": saved}, indent=1)
        try:
            path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
            path.with_suffix(".json").write_text(about, encoding="utf-8")
        except OSError as e:
            self.notify(f"{clean(path)}: {e.strerror}", severity="error")
        else:
            self.notify(f"{clean(path)}, and .json with all settings", title="saved")
