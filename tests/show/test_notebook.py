"""The widget shows in a notebook what the page shows, by the same script.

A page of a few lines stands for the notebook: it renders the widget as notebooks do, and this test carries
the messages between it and Python.
"""

import time

import numpy as np
import pytest

import fastjac
from fastjac import reference
from fastjac.show.notebook import Live
from support.pages import By, chromium, served

NOTEBOOK = """
const [page, description, done] = arguments;
const model = {
  get: (name) => ({ page, description })[name],
  on: (name, take) => (model.take = take),
  send: (content, callbacks, [message]) => model.out.push(Array.from(new Uint8Array(message))),
  out: [],
};
globalThis.model = model;
document.body.innerHTML = "<div></div>";
import("/page.js").then(({ default: widget }) => {
  widget.render({ model, el: document.body.firstChild });
  done();
});
"""
# Answers come at an offset in a larger buffer there.
ANSWER = """
const larger = Uint8Array.of(0, 0, 0, ...arguments[0]);
model.take({}, [new DataView(larger.buffer, 3)]);
"""


@pytest.fixture
def net():
    rng = np.random.default_rng(0)
    return fastjac.Network([(rng.normal(size=(3, 8)), None), (rng.normal(size=(8, 2)), None)], "tanh")


def test_the_widget_shows_what_the_network_says(installed_browser, net):
    widget = Live(net, ranges=(-1, 2))
    answers = []
    widget.send = lambda content, buffers: answers.extend(buffers)
    with served("--port", 0) as (_, url), chromium() as driver:
        driver.get(url)
        driver.execute_async_script(NOTEBOOK, widget.page, widget.description)
        end = time.monotonic() + 30
        while time.monotonic() < end and not driver.find_element(By.CSS_SELECTOR, ".times").text:
            for message in driver.execute_script("return model.out.splice(0)"):
                widget._handle_custom_msg({}, [memoryview(bytes(message))])
            while answers:
                driver.execute_script(ANSWER, list(answers.pop(0)))
        shown = [element.text for element in driver.find_elements(By.CSS_SELECTOR, ".output > .number")[::2]]
        errors = [entry["message"] for entry in driver.get_log("browser")]
    y, _ = reference.value_and_jacobian(np.full(3, 0.5), net.layers)
    np.testing.assert_allclose([float(text) for text in shown], y, atol=6e-4)
    assert errors == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (2, 2)}, r"shape is \(2, 2\), but the network takes 3 inputs"),
        ({"ranges": [(0, 1), (0, 1)]}, r"ranges has shape \(2, 2\), expected \(2,\) or \(3, 2\)"),
        ({"ranges": (1, 0)}, "ranges has one that is not two finite numbers"),
    ],
)
def test_what_does_not_fit_the_network_is_told(net, arguments, message):
    with pytest.raises(ValueError, match=message):
        Live(net, **arguments)
