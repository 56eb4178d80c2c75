"""A page in headless Chromium, driven through its DevTools protocol: for tests of pages that have a script."""

import asyncio
import base64
import contextlib
import gc
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

LOCAL = ("file:", "data:", "about:")


class Browser:
  """`with Browser() as browser: browser.open(path, width=800); browser.run("1 + 1")`.

  complaints: errors of the console, and requests to a network.
  """

  def __enter__(self):
    self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    options = "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"
    self._process = subprocess.Popen(
      [CHROMIUM, *options, f"--user-data-dir={self._folder.name}", "about:blank"],
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    self._loop = asyncio.new_event_loop()
    try:
      self._loop.run_until_complete(self._connect())
    except BaseException:
      self.__exit__()
      raise
    return self

  def __exit__(self, *_):
    if hasattr(self, "_socket"):
      self._loop.run_until_complete(self._close())
    self._process.kill()
    self._process.wait()
    for found in gc.get_objects():  # tornado leaves one of its own behind
      if isinstance(found, asyncio.AbstractEventLoop) and not found.is_running():
        found.close()
    self._folder.cleanup()

  async def _connect(self):
    from tornado.httpclient import AsyncHTTPClient
    from tornado.websocket import websocket_connect

    port_file, end = pathlib.Path(self._folder.name) / "DevToolsActivePort", time.monotonic() + 60
    while not (port_file.exists() and port_file.read_text().count("\n")):
      if time.monotonic() > end or self._process.poll() is not None:
        raise RuntimeError("Chromium did not start")
      await asyncio.sleep(0.05)
    port = port_file.read_text().split("\n")[0]
    found = json.loads((await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")).body)
    address = next(x["webSocketDebuggerUrl"] for x in found if x["type"] == "page")
    self._socket = await websocket_connect(address, max_message_size=1 << 28)
    self._number, self.complaints, self._loaded = 0, [], False
    for domain in ("Page", "Runtime", "Log", "Network"):
      await self._call(f"{domain}.enable")

  async def _close(self):
    self._socket.close()  # with the loop running: outside of it tornado takes another, which an earlier browser closed
    with contextlib.suppress(TimeoutError):
      while await asyncio.wait_for(self._socket.read_message(), 5) is not None:
        pass

  async def _call(self, method, **params):
    self._number += 1
    number = self._number
    await self._socket.write_message(json.dumps({"id": number, "method": method, "params": params}))
    while (answer := await self._read()).get("id") != number:
      pass
    if "error" in answer:
      raise RuntimeError(f"{method}: {answer['error']}")
    return answer["result"]

  async def _read(self):
    message = json.loads(await asyncio.wait_for(self._socket.read_message(), 60))
    method, params = message.get("method"), message.get("params", {})
    if method == "Page.loadEventFired":
      self._loaded = True
    elif method == "Runtime.exceptionThrown":
      self.complaints.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
    elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
      self.complaints.append(params["entry"]["text"])
    elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(LOCAL):
      self.complaints.append(f"asked for {params['request']['url']}")
    return message

  def call(self, method, **params):
    return self._loop.run_until_complete(self._call(method, **params))

  def open(self, path, *, width=1000, height=900, dark=False):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    self.call("Emulation.setEmulatedMedia", features=scheme)
    self.complaints, self._loaded = [], False
    self.call("Page.navigate", url=pathlib.Path(path).absolute().as_uri())

    async def loaded():
      while not self._loaded:
        await self._read()

    self._loop.run_until_complete(loaded())

  def run(self, script):
    """The value of an expression in the page."""
    found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    if "exceptionDetails" in found:
      raise RuntimeError(str(found["exceptionDetails"].get("exception", {}).get("description")))
    return found["result"].get("value")

  def hover(self, selector, index=0):
    """Puts the mouse on the middle of an element."""
    node = f"document.querySelectorAll({json.dumps(selector)})[{index}]"
    self.run(f"{node}.scrollIntoView({{block: 'center'}})")
    x, y = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({node}.getBoundingClientRect())")
    self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    return x, y

  def click(self, selector, index=0):
    x, y = self.hover(selector, index)
    for kind in ("mousePressed", "mouseReleased"):
      self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

  def key(self, name, *, alt=False, ctrl=False, meta=False, shift=False):
    text = {"text": name} if len(name) == 1 else {}
    options = dict(key=name, modifiers=alt + 2 * ctrl + 4 * meta + 8 * shift)
    self.call("Input.dispatchKeyEvent", type="keyDown", **options, **text)
    self.call("Input.dispatchKeyEvent", type="keyUp", **options)

  def picture(self, path):
    """Writes the whole page as a PNG file."""
    data = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")["data"]
    pathlib.Path(path).write_bytes(base64.b64decode(data))
