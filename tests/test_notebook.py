"""The HTML of networks, plans and reports: whole, escaped and small."""

from html.parser import HTMLParser

import numpy as np
import pytest

from fastjac import Network, check_jacobian, notebook

VILLAIN = "<script>alert('&')</script>"


class Reader(HTMLParser):
    """The texts and tags of a piece of HTML; fails where tags are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.cells, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open[-1] == "td":
            self.cells.append(data)


@pytest.fixture
def net():
    pairs = [(np.eye(2, 3), None), (np.eye(3, 2), None)]
    return Network(pairs, "tanh", "identity", input_names=["age", VILLAIN], output_names=["yes", VILLAIN])


def test_a_network_shows_its_layers_and_names(net):
    shown = Reader(net._repr_html_())
    assert shown.cells == ["1", "2", "3", "tanh", "2", "3", "2", "identity"]
    assert shown.texts[0] == "Network(2 -> 2, float64)"
    assert "inputs: 'age'" in shown.texts[-1]
    assert VILLAIN in shown.texts[-1]
    assert "script" not in shown.tags


def test_a_plan_shows_its_products():
    plan = Network([(np.ones((a, b)), None) for a, b in [(5, 20), (20, 30), (30, 4)]]).plan
    shown = Reader(plan._repr_html_())
    assert shown.texts[0] == f"Plan: {plan.multiply_adds:,} multiply-adds"
    assert shown.cells == ["W3' W2'", "4 x 30 x 20", "2,400", "(W3' ... W2') W1'", "4 x 20 x 5", "400"]
    assert "reverse mode: 2,800, forward mode: 3,600" in shown.texts


def test_a_report_shows_the_worst_entry(net):
    wrong = check_jacobian(
        net, [[0.1, 0.2], [0.3, 0.4]], lambda x: net.jacobian(x) + np.diag([0.0, x[0] > 0.2])
    )
    shown = Reader(wrong._repr_html_())
    assert shown.texts[0] == str(wrong).splitlines()[0]
    assert shown.texts[-1] == str(wrong).splitlines()[-1]
    assert shown.cells[0] == f"{wrong.entry} of sample 1"
    assert VILLAIN in shown.cells[0]
    assert "script" not in shown.tags


def test_a_report_of_nothing_has_no_entry():
    net = Network([(np.eye(2), None), (np.eye(2), None)])
    shown = Reader(check_jacobian(net, np.zeros(2))._repr_html_())
    assert (shown.cells, "not checked" in shown.texts[0]) == ([], True)


def test_a_thousand_layers_are_small():
    net = Network([(np.eye(2), None)] * 1000, "tanh")
    for html in (net._repr_html_(), net.plan._repr_html_()):
        shown = Reader(html)
        assert len(html) < 4000
        assert shown.tags.count("tr") == 22
        assert any("more" in cell for cell in shown.cells)
    assert "... 980 more ..." in Reader(net._repr_html_()).cells


def test_every_text_is_escaped():
    shown = Reader(notebook.table(VILLAIN, [VILLAIN], [[VILLAIN]], VILLAIN))
    assert shown.texts == [VILLAIN] * 4
