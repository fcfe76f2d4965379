"""A checkpoint to talk to and the conversation with it. Chat has one or two of them."""
import contextlib
import time

from textual.containers import Vertical, VerticalScroll
from textual.message import Message

from runs import clean, fixed, number
from screens.basics import DIM, KEY, Words, ends
from screens.talk import DEAF_SECONDS, SETTINGS, Talk
from screens.turn import Turn, Weights


class Voice(Vertical):
    "A checkpoint to talk to and the conversation with it: a column of Chat, which has one or two of them."

    DEFAULT_CSS = """
    Voice {
        width: 1fr;
        #model { height: 1; padding: 0 1; background: $boost; text-wrap: nowrap; }
        #said { padding: 0 1; }
        #said:focus { background-tint: $foreground 2%; }
        #turns { height: auto; min-height: 100%; }
        #welcome { padding: 1 2; color: $foreground 70%; }
    }
    """
    REASONS = {                                  # why an answer ended: of the protocol, in plain words
        "length": "full length",
        "end": "the text is at its end",
        "stop": "stop text reached",
        "cancelled": "stopped",
    }

    class Changed(Message):
        "It was loaded, failed, or ended an answer."

    def __init__(self, differs=None, **more):
        super().__init__(**more)
        self.differs = differs or {}             # settings of its own, whatever the knobs say
        self.talk = None                         # a Talk
        self.path = None                         # of the checkpoint
        self.written = None                      # when the file that is loaded was written
        self.ready = None                        # what the model said of itself when it was loaded
        self.file = None, None                   # the step and the loss of the file that is loaded
        self.trouble = ""
        self.pieces = []                         # said, but not yet shown
        self.count = 0                           # the number of the last request for an answer
        self.busy = None                         # the Turn that is being written
        self.used = 0                            # tokens of the context
        self.looking = None                      # the number of a request to look inside
        self.inside = None                       # what came of it

    def compose(self):
        yield Words(id="model")
        with VerticalScroll(id="said") as said, Vertical(id="turns"):
            said.anchor()                        # it stays at its end, until somebody scrolls
            yield Words(id="welcome")

    def on_mount(self):
        self.talk = Talk(self.app.gpt, self.heard)
        if self.path:                            # it was named before there was a place for it
            self.load(self.path)

    def on_unmount(self):
        self.talk.kill()

    def on_resize(self):
        self.show_model()

    @property
    def turns(self):
        "Of what was asked the version that is shown."
        return [turn for turn in self.query(Turn) if turn.display]

    @property
    def is_loading(self):
        return bool(self.path) and not self.ready and not self.trouble

    # the model

    @property
    def weights(self):
        return Weights(self.path, self.file[0])

    def last_written(self):
        with contextlib.suppress(OSError):
            return self.path.stat().st_mtime_ns

    def catch_up(self):
        "Load the file once more if its process is gone, or if training has written to it since."
        if self.trouble and not self.ready:
            self.load(self.path)
        elif self.ready and self.last_written() not in (None, self.written):
            self.notify(f"{self.path.name} has newer weights: loading them")
            self.load(self.path)

    def moved(self, old, new):
        "The folder of a run has another name."

        def there(path):
            return new / path.name if path.parent == old else path

        if self.path:
            self.path = there(self.path)
        for turn in self.query(Turn):
            turn.weights = [weights._replace(path=there(weights.path)) for weights in turn.weights]

    def load(self, path):
        self.path = path
        self.written = self.last_written()
        self.ready = None
        self.trouble = ""
        self.used = 0
        if self.talk:
            if self.busy:
                self.talk.stop(self.count)
            self.finish("stopped")
            self.talk.load(path)
            self.show()

    def heard(self, kind, answer):
        "Called on the thread that listens."
        if kind == "piece":
            self.pieces.append(answer)           # they wait for the next repaint
        else:
            self.call_later(self.hear, kind, answer)

    def hear(self, kind, answer):
        self.flush()
        if self.looking and answer.get("id") == self.looking:  # what it saw, or an error
            self.looking = None
            self.inside = answer
        elif kind == "ready":
            self.ready = answer
            self.file = self.step_and_loss()
            self.trouble = ""
        elif kind == "gone":
            self.ready = None
            self.looking = None
            self.trouble = answer["message"]
            self.finish("its process ended")
        elif kind == "error":
            self.trouble = answer.get("message", "an error without a word")
            self.finish("error")
        elif kind == "done" and str(answer.get("id")) == str(self.count):
            self.used = number(answer.get("context_used")) or self.used
            tokens = number(answer.get("tokens"))
            self.finish(answer.get("reason", ""), tokens, number(answer.get("tokens_per_s")))
        self.show()
        self.post_message(self.Changed())

    def flush(self):
        "Show what came since the last repaint. -> whether anything did"
        came = self.pieces[:]
        del self.pieces[:len(came)]              # others may have come by now
        turn = self.busy
        if not turn:
            return False
        pieces = [piece for piece in came if str(piece.get("id")) == str(self.count)]
        if pieces:
            turn.add(pieces)
            self.used += len(pieces)
            speed = len(turn.tokens) / max(0.01, time.monotonic() - turn.asked)
            turn.tell(f"{len(turn.tokens)} tokens · {speed:.0f} tokens/s · writing, esc stops")
            self.show_model()
        if turn.stopping and time.monotonic() - turn.stopping > DEAF_SECONDS:
            self.talk.kill()
            self.finish("stopped; its process was ended")
        return bool(pieces)

    def finish(self, why, tokens=None, speed=None):
        "The answer is at its end: below it stands what it took and how it was sampled."
        turn = self.busy
        self.busy = None
        if not turn:
            return
        report = [f"{len(turn.tokens) if tokens is None else tokens} tokens"]
        if speed:
            report.append(f"{speed:.0f} tokens/s")
        for setting in SETTINGS:
            value = turn.settings[setting.name]
            if setting.said and value != setting.off:
                report.append(f"{setting.said} {value:g}")
        why = clean(why)
        turn.tell(" · ".join([*report, self.REASONS.get(why, why)]))

    # what is shown

    def show(self):
        self.show_model()
        welcome = self.query_one("#welcome", Words)
        texts = self.welcome()
        welcome.put(*texts)
        welcome.display = bool(texts)

    def welcome(self):
        "What is said before there is a conversation, or below it if something went wrong."
        is_dialogue = self.screen.knob("mode") == "dialogue"
        if self.trouble:
            told = [("It does not work:\n", "bold $text-error"), clean(self.trouble)]
            if self.ready:                       # it was this request, not the model
                return told
            return [*told, "\n\n", ("enter", KEY), " loads it again, ", ("ctrl+o", KEY), " another one."]
        if not self.path:
            return [("No model yet. ", "bold"), "To talk you need a trained one.\n\n",
                    ("esc 1", KEY), " trains one: nano takes a minute or two.\n",
                    ("ctrl+o", KEY), " lists what is there."]
        if not self.ready:
            later = "\nWhat you typed is sent when it is ready." if self.screen.waits else ""
            return [f"Loading {clean(self.path)} …{later}"]
        if not self.turns and is_dialogue:
            return ["Dialogue: what you say stands after User:, and the model goes on after Assistant:. "
                    "It was trained to continue text and not to answer: expect noise."]
        if not self.turns:
            return ["This model continues text; it was not taught to answer questions. Write the beginning, "
                    "and it writes the rest."]
        return []

    def show_model(self):
        "The line above: which model, how far it was trained, and how much of its context is used."
        width = self.size.width - 2
        line = self.query_one("#model", Words)
        if not self.path:
            line.put(ends(width, [("no model", "bold")], []))
            return
        name = f"{clean(self.path.parent.name)} "
        own = "".join(f"{s.said} {self.differs[s.name]:g} " for s in SETTINGS if s.name in self.differs)
        room = width - len(name + self.path.name + own)
        abouts = self.about_model()
        fullnesses, color = self.context()
        fitting = (text for text in fullnesses if len(abouts[1] + text) < room)
        fullness = next(fitting, fullnesses[-1])
        fitting = (text for text in abouts if len(text + fullness) < room)
        about = next(fitting, "")
        left = [(name, "bold"), (own, "$text-accent"), self.path.name, (about, DIM)]
        line.put(ends(width, left, [(fullness, color)]))

    def about_model(self):
        "What there is to say of it: all, what is worth more than a bar of the context, the least."
        if not self.ready:
            return "", "", ""
        level = f"  {clean(self.ready.get('level', ''))}"
        step, loss = self.file
        if step is None:
            return level, level, ""
        at = f"  step {step:,}"
        trained = at
        if loss is not None:
            trained += f" · val {fixed(loss)}"
        return f"{level} ·{trained[1:]}", trained, at

    def step_and_loss(self):
        """Of the file as it was loaded: training may have gone on since. The model itself knows best, but of
        a latest.pt no loss."""
        run = self.app.runs.get(self.path.parent)
        in_run = run.in_file(self.path.name) if run else (None, None)
        step = number(self.ready.get("step"))
        if step is None:
            return in_run
        loss = number(self.ready.get("val_loss"))
        if loss is None and in_run[0] == step:
            loss = in_run[1]
        return int(step), loss

    def context(self):
        "-> how full it is, the longest form first, and its colour."
        size = number((self.ready or {}).get("block_size"))
        if not size:
            return [""], "$text-success"
        used = min(self.used, size)
        filled = round(12 * used / size)
        numbers = f"{used}/{size} "
        bar = f"context {'█' * filled}{'░' * (12 - filled)} {numbers}"
        if self.used > size:
            why = "forgets its beginning "
            return [f"{why} {bar}", f"{why}{numbers}", f"forgets {numbers}"], "$text-warning"
        return [bar, f"context {numbers}", numbers], "$text-success"

    # asking

    async def begin(self, turn, settings, instead=None):
        "A new turn, after all others; instead: one that is removed, in all its versions."
        for version in instead.versions if instead else []:
            if version.is_attached:
                await version.remove()
        for version in turn.versions:
            version.display = version is turn
        self.query_one("#welcome").display = False
        turn.voice = self
        await self.query_one("#turns").mount(turn, before="#welcome")
        self.ask(turn, settings)

    def ask(self, turn, settings):
        "Let the model go on from all of the turn."
        self.count += 1
        self.busy = turn
        self.trouble = ""
        turn.asked = time.monotonic()
        turn.stopping = None
        turn.settings = {**settings, **self.differs}
        self.sign(turn)
        prompt = turn.sent + turn.text()
        turn.requests.append((len(turn.tokens), prompt))
        request = {"id": self.count, "prompt": prompt, "probs": True, **turn.settings}
        if turn.stop:
            request["stop"] = turn.stop
        self.talk.say(**request)
        turn.tell("thinking …")
        self.query_one("#said").scroll_end(animate=False)

    def sign(self, turn):
        "It is an answer of these weights. It says so if the turn before or another answer is of others."
        if self.weights not in turn.weights:
            turn.weights.append(self.weights)
        compared = [*self.turns[-2:-1], *turn.versions]
        all_weights = {weights for other in compared for weights in other.weights}
        for version in turn.versions:
            version.says_whose = len(all_weights) > 1

    def stop(self):
        if not self.busy.stopping:
            self.busy.stopping = time.monotonic()
        self.talk.stop(self.count)

    def new_turn(self, text, instead, is_dialogue, xray):
        if not is_dialogue:
            return Turn(text, text, xray=xray)
        before = ""
        turns = [turn for turn in self.turns if turn is not instead]
        if turns:
            before = turns[-1].sent + turns[-1].text()
        sent = f"{before}\n\nUser: {text}\n\nAssistant:".lstrip("\n")  # as `gpt.py chat` has it
        return Turn(f"{text}\n", sent, "User:", xray)

    def step(self, by):
        "Another version of the last answer."
        if not self.turns:
            return
        here = self.turns[-1]
        versions = here.versions
        shown = versions[(versions.index(here) + by) % len(versions)]
        here.display = False
        shown.display = True
        shown.tell(shown.told)
        self.query_one("#said").scroll_end(animate=False)

    # looking inside

    def look_inside(self, turn, at):
        "Ask what went on in the model before it said a token. -> why that can't be said, or nothing"
        token = turn.tokens[at]
        if token.id is None:
            return "It is the rest of a character and no token of its own."
        if turn.weights != [self.weights] or not self.ready:
            return "It was said by another model than the one that is loaded."
        prompt, said = turn.said_before(at)
        self.looking = f"inside {id(turn)} {at}"
        self.talk.say(id=self.looking, prompt=prompt, inside=[turn.tokens[n].id for n in said])

    def scroll_to_row(self, y):
        said = self.query_one("#said")
        if not said.scroll_offset.y <= y < said.scroll_offset.y + said.size.height:
            said.scroll_to(y=y - said.size.height // 2, animate=False)
