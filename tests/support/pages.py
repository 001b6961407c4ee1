"""`fastjac show` in a process of its own, its page's messages, and headless Chromium to look at the page."""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from websockets.sync.client import connect

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",  # for root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STATE, WHAT_IF, FLIP, CHECK = range(4)


@contextlib.contextmanager
def served(*arguments, prefix=()):
    """Yield the process of `fastjac show` and the address that it prints."""
    command = [*prefix, sys.executable, "-m", "fastjac", "show", "--no-browser", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, re.search(r"http://\S+/", process.stdout.readline())[0]
        finally:
            process.terminate()


def description(url):
    """Return what the page at ``url`` knows about its network, the token too."""
    with urllib.request.urlopen(url) as page:
        text = page.read().decode()
    return json.loads(re.search(r'<script type="application/json".*?>(.*?)</script>', text)[1])


def opened(url, token=None, origin=None, **arguments):
    """Return a connection as the page opens one; empty for ``token`` or ``origin`` leaves it out."""
    token = description(url)["token"] if token is None else token
    address = url.replace("http:", "ws:") + "live" + (f"?token={token}" if token else "")
    arguments = {"compression": None, "max_queue": 1, **arguments}
    return connect(address, origin=url.rstrip("/") if origin is None else origin or None, **arguments)


def message(sequence, kind, view, *vectors):
    return struct.pack("<IHH", sequence, kind, view) + np.asarray(vectors, "<f4").tobytes()


def numbers(answer):
    """Return an answer's header and its numbers."""
    return struct.unpack_from("<IHH", answer), np.frombuffer(answer, "<f4", offset=8)


@contextlib.contextmanager
def chromium(width=1200, height=1000, dark=False):
    """Yield a driver of a new browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="fastjac-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(
            options, webdriver.ChromeService(DRIVER, env={**os.environ, "HOME": profile})
        )
        try:
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield driver
        finally:
            driver.quit()


def stroke(driver, points, kind="mouse", milliseconds=0):
    """Draw a line through points that are shares (across, down) of the drawing, from 0 to 1."""
    ink = driver.find_element(By.CSS_SELECTOR, ".ink")
    size = ink.size
    actions = ActionBuilder(driver, mouse=PointerInput(kind, kind), duration=milliseconds)
    pointer = actions.pointer_action
    for number, (across, down) in enumerate(points):
        pointer.move_to(ink, (across - 0.5) * size["width"], (down - 0.5) * size["height"])
        if number == 0:
            pointer.pointer_down()
    pointer.pointer_up()
    actions.perform()
