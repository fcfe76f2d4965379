"""The process that Chat talks to, and how it can be told to sample."""
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import namedtuple

from runs import clean

# choices: what a knob can be turned to; said, off: its name in a report, which is left out where it is off.
Setting = namedtuple("Setting", "name default choices type said off", defaults=[float, None, None])
MODE = Setting("mode", "continue", ("continue", "dialogue"), str)
SETTINGS = [
    Setting("temperature", 0.8, [f"{t / 10:g}" for t in range(21)], float, "T"),
    Setting("top_k", 0, (0, 1, 5, 10, 20, 40, 100, 200), int, "top-k", 0),
    Setting("top_p", 0.95, (0.5, 0.7, 0.8, 0.9, 0.95, 1), float, "top-p", 1),
    Setting("min_p", 0, (0, 0.01, 0.02, 0.05, 0.1, 0.2), float, "min-p", 0),
    Setting("repetition_penalty", 1, (1, 1.05, 1.1, 1.2, 1.3, 1.5), float, "repetition", 1),
    Setting("max_new_tokens", 200, (20, 50, 100, 200, 500, 1000, 2000), int),
    Setting("seed", 0, (0, 1, 2, 3, 42, 1337), int, "seed"),
]
KNOBS = {                                        # what they do, for who turns them for the first time
    "mode": "continue: the model writes on from what you begin. dialogue: what you say is put as a question, "
            "for a model that was taught to answer.",
    "temperature": "How much chance there is in each choice. 0: always the likeliest token, which soon goes "
                   "round in circles. 1: just as the model believes. Above that: wilder.",
    "top_k": "Choose among so many of the likeliest tokens. 0: among all.",
    "top_p": "Choose among the likeliest tokens which together have this probability: few where the model "
             "is sure, many where it is not. 1: among all.",
    "min_p": "Leave out tokens that have less than this share of the likeliest one's probability. 0: none.",
    "repetition_penalty": "How much less likely a token becomes once it was said. 1: not at all.",
    "max_new_tokens": "How long an answer may become. ctrl+g writes on.",
    "seed": "The dice: the same seed, text and knobs give the same answer. 0: new dice each time.",
}
DEAF_SECONDS = 2                                 # after which a process that does not stop is ended


class Talk:
    """A checkpoint to talk to: `gpt.py chat --jsonl`, a process that takes and gives a JSON object a line.

    hear(kind, answer) is called with each answer, on the thread that listens; at last with "gone" and why."""

    def __init__(self, gpt, hear):
        self.gpt = gpt
        self.hear = hear
        self.process = None

    @property
    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def load(self, path):
        "Another checkpoint: in the process that is there, or in a new one."
        if self.is_alive:
            self.say(load=str(path))
            return
        self.process = subprocess.Popen(
            [sys.executable, str(self.gpt), "chat", str(path), "--jsonl"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )
        threading.Thread(target=self.listen, args=[self.process], daemon=True).start()

    def say(self, **request):
        "One request: id=, prompt= and how to sample, stop= the id of one, or load= a checkpoint."
        line = json.dumps(request).encode() + b"\n"
        with contextlib.suppress(OSError):       # it died: listen() finds out
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def stop(self, request):
        "End the answer to the request of that id."
        self.say(stop=request)

    def listen(self, process):
        words = []                               # what is no answer: an error, perhaps
        for line in process.stdout:
            try:
                answer = json.loads(line)
                kind = answer["kind"]
            except (ValueError, TypeError, KeyError):
                words = [*words, clean(line.decode("utf-8", "replace").rstrip())][-4:]
            else:
                self.hear(kind, answer)
        status = process.wait()
        if process is self.process:              # and no other has taken its place
            self.hear("gone", {"message": "\n".join(words) or f"Its process ended (status {status})."})

    def kill(self):
        if self.process:
            self.process.kill()
