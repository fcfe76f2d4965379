"What the tests of several files share."
import shutil
import time
from pathlib import Path

import pytest


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
