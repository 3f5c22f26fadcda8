"""A report's page in a real browser, of a run in which every text is hostile: nothing runs, nothing is fetched, and it
can be read. Needs Debian's chromium or Chrome; `.ci/run` installs it where it may.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import runs
from pipeline.page import write_page
from pipeline.records import Completion, Request, Stage
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

connect = pytest.importorskip("websockets.sync.client").connect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: `apt-get install chromium`")

HOSTILE = (
    "<script>window.owned = 1; document.title = 'owned'; alert(1)</script>",
    "</pre></article></main><img src=http://127.0.0.1:9/x.png onerror=window.owned=2>",
    "<svg onload=window.owned=3><use href='http://127.0.0.1:9/y.svg#z'/></svg>",
    "<iframe srcdoc='<script>parent.owned=4</script>'></iframe><base href=http://127.0.0.1:9/>",
    "\"><style>@import 'http://127.0.0.1:9/z.css'; body { display: none }</style><link href=//127.0.0.1:9>",
    "<meta http-equiv=refresh content='0; url=http://127.0.0.1:9/'><form action=//127.0.0.1:9><button autofocus>",
    "{{ 7 * 7 }} {% raw %} {{ self }} $HOME ${HOME} $\\frac{1}$ %s {0} &lt;b&gt; <!-- ]]> -->",
    "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe \u2066\x00 end " + "W" * 600,
)

READABLE = """(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => parts(text).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const solid = text => { const found = parts(text); return found.length < 4 || found[3] > 0; };
  const behind = element => {
    for (let each = element; each; each = each.parentElement)
      if (solid(getComputedStyle(each).backgroundColor)) return getComputedStyle(each).backgroundColor;
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(element), drawn = element.closest('svg');
    const ink = drawn ? style.fill : style.color;
    if (drawn && (element.tagName === 'title' || ink === 'rgb(255, 255, 255)' )) continue;  // on a slice of its own
    const [one, other] = [light(ink), light(behind(element))].sort();
    found.push({text: element.textContent.trim().slice(0, 40), ratio: (other + 0.05) / (one + 0.05)});
  }
  return {found, back: light(getComputedStyle(document.body).backgroundColor)};
})()"""


def hostile(request: Request) -> Completion:
    """Answers in which every text begins plainly and goes on with something hostile."""
    answer = scripted_answer(request)
    poison = HOSTILE[request.key.unit % len(HOSTILE)]
    match request.key.stage:
        case Stage.BOOTSTRAP:
            return replace(answer, text=answer.text.replace(" the ", f" the {poison} ", 1))
        case Stage.INSTANCES:
            return replace(answer, text=answer.text.replace("Output: ", f"Output: {poison} "))
    return answer


class Page:
    """A page in a browser: asks it things by the DevTools protocol, and keeps what it says meanwhile."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": number, "method": method, "params": params, **session}))
        while (said := self._next()).get("id") != number:
            pass
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    def open(self, path: Path) -> None:
        """Load a file to its end."""
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        """What an expression comes to on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def seen(self, method: str) -> list[dict[str, Any]]:
        """The events of a name."""
        return [event["params"] for event in self.events if event["method"] == method]

    def _next(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._socket.recv(timeout=60))
        if "method" in said:
            self.events.append(said)
        return said


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a hostile run."""
    from pipeline.config import parse_config

    folder = tmp_path_factory.mktemp("hostile")
    values = {"name": "t", "target": 1000, "budget": {"units": 24}, "window": 8, "shards": {"rows": 50}}
    engine = {"kind": "scripted", "model": "<script>window.owned=5</script>"}
    asyncio.run(run_to_end(parse_config({**values, "engine": engine}, "test"), folder / "r", ScriptedEngine(hostile)))
    write_page(runs.read(folder / "r"), folder / "t.html")
    return folder / "t.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Page]]:
    """A browser without a network; gives a new page at each call."""
    home = tmp_path_factory.mktemp("chromium")
    switches = "headless=new no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update"
    command = [str(CHROMIUM), *(f"--{switch}" for switch in switches.split()), "--remote-debugging-port=0"]
    command += [f"--user-data-dir={home}", "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"]

    def end_with_us() -> None:  # a suite that is killed runs no clean-up
        with contextlib.suppress(AttributeError):  # Linux alone knows this
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=end_with_us
    )
    patience = threading.Timer(60, process.kill)
    patience.start()
    try:
        assert process.stderr is not None
        address = next((line.split()[-1] for line in process.stderr if line.startswith("DevTools listening on")), None)
        assert address, "the browser did not start within 60 s"
        threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits for us
        with connect(address, max_size=None) as socket:
            yield lambda: Page(socket)
    finally:
        patience.cancel()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_nothing_on_the_page_runs_or_asks_for_anything(browser, path) -> None:
    """Hostile texts are text: no script, handler, form, frame or outer address; the file is the one thing loaded."""
    page = browser()
    page.open(path)
    page.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
    shown = page.value("[...document.querySelectorAll('pre')].map(each => each.textContent).join('\\n')")
    strange = "script, iframe, img, form, link, base, object, embed, button, input, use:not([href^='#'], [*|href^='#'])"
    handlers = "[...document.querySelectorAll('*')].filter(each => each.getAttributeNames().some(n => /^on/i.test(n)))"

    assert page.value("document.title") == "t: a run of InstructMill"
    assert page.value("typeof window.owned") == "undefined"
    assert page.seen("Page.javascriptDialogOpening") == []
    assert [request["request"]["url"] for request in page.seen("Network.requestWillBeSent")] == [path.as_uri()]
    assert page.value(f"document.querySelectorAll({json.dumps(strange)}).length") == 0
    assert page.value(f"{handlers}.length") == 0
    assert page.value("document.querySelectorAll('meta[http-equiv]').length") == 1
    assert page.value("[...document.links].every(link => link.getAttribute('href').startsWith('#'))")
    assert page.value("document.querySelectorAll('figure svg').length") >= 5
    assert all(text in shown for text in (HOSTILE[0], HOSTILE[1], "{{ 7 * 7 }}", "${HOME}", "\\x1b[2J", "\\u202egnp"))


def test_its_own_policy_would_stop_a_script(browser, path) -> None:
    """Were a script to come into the page, or an address of elsewhere, the policy in its head refuses it."""
    page = browser()
    page.open(path)
    refused = page.value(
        "new Promise(done => { const refused = [];"
        "document.addEventListener('securitypolicyviolation', event => {"
        "  refused.push(event.effectiveDirective); if (refused.length === 3) done(refused.sort()) });"
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/a.png onerror=window.owned=6>');"
        "const added = document.createElement('script'); added.text = 'window.owned = 7'; document.body.append(added)})"
    )

    assert refused == ["img-src", "script-src-attr", "script-src-elem"]
    assert page.value("typeof window.owned") == "undefined"


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_hangs_over_the_side(browser, path, width) -> None:
    """With everything unfolded the page is as wide as its window, unbroken words of 600 letters included."""
    page = browser()
    page.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    page.open(path)
    page.value("document.querySelectorAll('details').forEach(each => { each.open = true })")

    assert page.value("window.innerWidth") == width
    assert page.value("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_both_schemes(browser, path, scheme) -> None:
    """Every text stands out from what is behind it by 4.5 to 1 at least, in drawings too."""
    page = browser()
    page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.open(path)
    page.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
    looked = page.value(READABLE)

    assert len(looked["found"]) > 200
    assert [each for each in looked["found"] if each["ratio"] < 4.5] == []
    assert (looked["back"] > 0.5) == (scheme == "light")
