"""A real Chromium, driven over a pipe: the DevTools protocol is JSON ended by a zero byte."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def installed():
    """The browser's path, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a headless browser. Use it as a context manager."""

    def __init__(self, width=1280, height=1000):
        self.size = width, height
        self.events, self._number, self._rest = [], 0, b""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        there, self._out = os.pipe()
        self._in, back = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        flags += ["--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
        flags += [f"--user-data-dir={self._folder.name}", "about:blank"]
        # The browser reads from descriptor 3 and writes to 4. (A preexec_fn would fork the
        # test's threads.)
        script = f'exec "$@" 3<&{there} 4>&{back} 2>/dev/null'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", installed(), *flags], pass_fds=(there, back)
        )
        os.close(there)
        os.close(back)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        width, height = self.size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    _session = None

    def call(self, method, **params):
        """Send a command; returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path):
        """Load a file, until its `load` event."""
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next())

    def value(self, expression):
        """The value of an expression on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code=None):
        """A key, as if somebody typed it."""
        number = {"ArrowRight": 39, "ArrowLeft": 37, "End": 35, "Tab": 9, "Enter": 13}[key]
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=code or key,
                windowsVirtualKeyCode=number,
                **(more if kind == "keyDown" else {}),
            )

    def screenshot(self, selector=None):
        """PNG bytes of what is in view, or of one element."""
        more = {}
        if selector:
            self.value(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
            box = self.value(
                "(() => { const b = document.querySelector('" + selector + "')"
                ".getBoundingClientRect(); return [b.x + scrollX, b.y + scrollY, b.width, "
                "b.height]; })()"
            )
            clip = dict(zip(("x", "y", "width", "height"), box, strict=True), scale=1)
            more = {"clip": clip}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"])

    def complaints(self):
        """What was logged as an error or thrown, so far."""
        self.value("1")  # whatever was said before this has now arrived
        logged = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        thrown = [e for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        said = [e for e in self.events if e.get("method") == "Runtime.consoleAPICalled"]
        said = [e for e in said if e["params"]["type"] in ("error", "warning", "assert")]
        return [e for e in logged if e["level"] in ("error", "warning")] + thrown + said

    def _next(self, seconds=120):
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            ready = select.select([self._in], [], [], max(left, 0))[0] if left > 0 else []
            if not ready:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)
