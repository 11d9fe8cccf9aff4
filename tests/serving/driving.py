"""A server in this process, and a browser that looks at it."""

import http.client
import json
import shutil
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

from colmrl.serving import run
from colmrl.serving.desk import Desk
from colmrl.showing.answering import Answerer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@contextmanager
def served(config, store, indexes=(), view=None, host="127.0.0.1", **answerer):
    """The address of a store that is served, and its desk."""
    desk = Desk(Answerer(config, store, **answerer), indexes, view)
    desk.warm_up()
    taken, ready, servers = run.take(host, 0), threading.Event(), []
    thread = threading.Thread(target=run.serve, args=(desk, taken, host, ready.set, servers.append))
    thread.start()
    try:
        assert ready.wait(120)
        yield run.url_of(host, taken), desk
    finally:
        servers[0].should_exit = True
        thread.join(120)
        assert not thread.is_alive()


def sent(url, method="GET", path="/", body=None, headers=None):
    """(status, headers in lower case, body) of one request; its path goes as it is."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        length = {} if body is None else {"Content-Length": str(len(body))}
        for name, value in (length | (headers or {})).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def asked(url, path, question=None):
    """(status, what the JSON says)."""
    body, headers = None, {}
    if question is not None:
        body, headers = json.dumps(question).encode(), {"Content-Type": "application/json"}
    status, _, said = sent(url, "GET" if question is None else "POST", path, body, headers)
    return status, json.loads(said)


@contextmanager
def browser(folder, width=1280, height=900, dark=False):
    """Headless Chromium; it keeps nothing."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    more = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    more += ["--force-dark-mode"] if dark else []
    for one in [*more, f"--user-data-dir={folder}/chromium"]:
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        sized(driver, width, height)
        yield driver
    finally:
        driver.quit()


def sized(driver, width, height, dark=False):
    """As if the screen were so large (a window cannot be as narrow as a phone)."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
