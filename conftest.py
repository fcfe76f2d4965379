"What the tests of several files share."
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).resolve().parent


def until(condition, seconds=10):
    "Waits for something that another thread, process or page does."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="session")
def story():
    import gpt  # here, since it takes torch along, which not every test needs

    return gpt.read_text("builtin")[:40_000]


@pytest.fixture
def place(tmp_path, monkeypatch, story):
    "An empty folder with a text, to work in."
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(story, encoding="utf-8")
    return tmp_path


SERVER = r"""
import json, os, resource, signal, sys, time, traceback
sys.path.insert(0, {here!r})
import torch
import gpt
import runs
import data
with __import__("contextlib").suppress(ImportError):
    import tools
torch.set_num_threads(1)
signal.signal(signal.SIGHUP, signal.SIG_DFL)       # even where these tests run under nohup
gpt.make_optimizers(gpt.GPT(gpt.ModelConfig(vocab_size=9)), gpt.TrainConfig(), torch.float32)
told = getattr(gpt, "errors_told", None) or gpt.problems_told

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def before_step(does):
    inner = gpt.lr_factor
    def watched(config, step, done):
        does(step)
        return inner(config, step, done)
    gpt.lr_factor = watched

def obey(words):
    with told():
        if words[0] == "data":
            data.main(words[1:])
        else:
            gpt.run_command(*gpt.command_line(words))

def child(job):
    os.setpgid(0, 0)
    os.chdir(job["cwd"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for fd, path in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(path, flags), fd)
    os.dup2(os.open(job["stdin"], os.O_RDONLY), 0)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    status = 0
    try:
        exec(job["patch"], globals())
        obey(job["words"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        status = 120                              # as Python itself does
    os._exit(status)

for line in sys.stdin:
    job = json.loads(line)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(job)
    hang, ended = False, 0
    while not ended:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended and time.monotonic() - started > job["limit"]:
            hang = True
            os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0)
        time.sleep(0.003)
    with __import__("contextlib").suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)            # what it has started itself
    answer = dict(status=os.waitstatus_to_exitcode(status), hang=hang, seconds=time.monotonic() - started)
    print(json.dumps(answer), flush=True)
"""


class House:
    """Runs command lines as the shell would, each in a process of its own, which need not import torch.
    patch: code that runs in it before."""

    def __init__(self, folder):
        self.folder = folder
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "MPLBACKEND": "Agg"}
        command = [sys.executable, "-c", SERVER.format(here=str(HERE))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=env, **pipes)

    def run(self, *words, cwd=None, patch="", out=None, stdin="/dev/null", limit=20, memory=6 << 30):
        said, err = self.folder / "out", self.folder / "err"
        job = {"words": [str(word) for word in words], "cwd": str(cwd or os.getcwd()), "patch": patch,
               "out": str(out or said), "err": str(err), "stdin": str(stdin), "limit": limit,
               "memory": memory}  # fmt: skip
        said.write_text("")
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        done = SimpleNamespace(**json.loads(self.process.stdout.readline()))
        done.out, done.err = (path.read_text(encoding="utf-8", errors="replace") for path in (said, err))
        done.words = job["words"]
        return done

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("house"))
    yield house
    house.close()


@pytest.fixture
def browser(tmp_path):
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs Debian's chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", "window-size=1200,900",
                 f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{word}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()
