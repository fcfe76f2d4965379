"""The text to train on: a box that finds it on the disk, and its start as the model gets it."""
import contextlib
import os
from pathlib import Path

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from runs import clean, plain_file, short, size
from screens.basics import DIM, Words, bits, hidden
from screens.shared import Box


class Browse(Box):
    "A file of one's own: a folder after the other, with the first lines of the file under the cursor."

    DEFAULT_CSS = """
    Browse {
        OptionList { height: 12; max-height: 12; }
        Words { height: 5; border-top: solid $foreground 15%; color: $foreground 60%; text-wrap: nowrap; }
    }
    """
    BINDINGS = [hidden("backspace,left", "up", "The folder above")]
    OURS = {"runs", "__pycache__"}               # folders in which nobody keeps texts

    def __init__(self):
        self.folder = Path.cwd()
        self.list = OptionList(compact=True)
        super().__init__("", self.list, Words())
        self.frame.border_subtitle = "enter takes it, backspace: the folder above"

    def on_mount(self):
        self.open(self.folder)

    def open(self, folder, at=None):
        "Show what is in a folder, with the cursor on the one of a name."
        try:
            found = [path for path in folder.iterdir() if self.is_of_use(path)]
        except OSError as e:
            self.app.notify(f"{folder}: {e.strerror}", severity="warning")
            return
        self.folder = folder
        self.frame.border_title = Content(clean(folder))  # [x] in a name is no markup
        found.sort(key=lambda path: (not os.path.isdir(path), path.name.lower()))
        self.list.clear_options()
        if folder.parent != folder:
            self.list.add_option(Option(bits(("..", "bold"), ("  the folder above", DIM)), id=".."))
        for path in found:
            self.list.add_option(Option(self.line(path), id=path.name))
        names = [path.name for path in found]
        self.list.highlighted = 1 + names.index(at) if at in names else 0
        self.list.focus()

    def is_of_use(self, path):
        return not path.name.startswith(".") and path.name not in self.OURS

    def line(self, path):
        name = clean(path.name)
        if os.path.isdir(path):
            return bits((f"{name}/", "bold"))
        found = plain_file(path)
        length = f"{short(found.st_size)}B" if found else "—"
        return bits(f"{name:52} ", (f"{length:>9}", DIM))

    def on_option_list_option_highlighted(self, event):
        self.query_one(Words).put(self.first_lines(self.path_of(event.option_id)))

    def path_of(self, name):
        return self.folder.parent if name == ".." else self.folder / name

    def first_lines(self, path):
        if os.path.isdir(path):
            is_data = os.path.exists(path / "meta.json")
            return "made by data.py: enter takes it" if is_data else "a folder"
        if not plain_file(path):                 # reading a pipe would wait for who writes into it
            return "no file to read"
        try:
            with open(path, "rb") as file:
                start = file.read(1000)
        except OSError as e:
            return e.strerror
        if b"\0" in start:
            return "no text"
        return clean(start.decode("utf-8", "replace").replace("\r", ""))

    def on_option_list_option_selected(self, event):
        path = self.path_of(event.option_id)
        if os.path.isdir(path) and not os.path.exists(path / "meta.json"):
            self.open(path, at=self.folder.name)
            return
        if path.name in ("meta.json", "train.bin", "val.bin"):
            path = path.parent
        with contextlib.suppress(ValueError):
            path = path.relative_to(Path.cwd())
        self.dismiss(str(path))

    def action_up(self):
        self.open(self.folder.parent, at=self.folder.name)


class Preview(Words):
    "The text to train on: how much it is, and its start as the level cuts it, a block a token."

    BLOCKS = "on $primary 30%", "on $accent 25%", "on $success 25%", "on $warning 25%"
    UNKNOWN = "bold on $error 60%"

    def tell(self, name, about, seen):
        "about: what gpt.py says of it; seen: how many tokens the planned training sees, or None"
        title = (f"{clean(name)}", "bold")
        if "why" in about:
            self.put(title, f"  {clean(about['why'])}")
            return
        roughly = "about " if about["is_part"] else ""
        facts = [size_of_text(about["bytes"]), f"{roughly}{short(about['tokens'])} tokens",
                 f"{about['kinds']:,} kinds"]
        if about["unknown"]:
            facts.append(f"{about['unknown']:.1%} unknown")
        if seen:
            times = seen / max(1, about["tokens"])
            facts.append(f"seen {short(times) if times >= 1000 else f'{times:.3g}'} times")
        self.put(title, f"  {' · '.join(facts)}\n\n", *self.blocks(about))

    def blocks(self, about):
        for at, (text, token) in enumerate(about["start"]):
            look = self.BLOCKS[at % len(self.BLOCKS)]
            if token == about["unknown_id"]:
                look = self.UNKNOWN
            yield clean(text), look


def size_of_text(n):
    return size(n) if n >= 1e6 else f"{short(n)}B"
