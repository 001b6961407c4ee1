"""``fastjac jacobian`` with names: which row it writes, its table of strongest inputs, and its drawings."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import fastjac
from fastjac.__main__ import main
from fastjac.commands.strongest import Strongest
from support.oracles import Case

NAMES = [f"pixel {n}" for n in range(6)]
OUTPUTS = ["one", "two", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = Case((6, 12, 3), "tanh", scale=2.0).network()
    fastjac.save(net.replace(input_names=NAMES, output_names=OUTPUTS), "named.npz")
    fastjac.save(net, "plain.npz")
    np.save("x.npy", np.random.default_rng(0).standard_normal((25, 6)))
    return tmp_path


def run(capsys, *options, model="named.npz", inputs="x.npy"):
    """Return what the command prints, and the Jacobians that the network has at its inputs."""
    code = main(["jacobian", model, inputs, "-o", "out.npz", *options])
    output = capsys.readouterr()
    assert code == 0, output.err
    return output.out, fastjac.load(model).jacobian(np.load(inputs))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved, save = [], Figure.savefig

    def savefig(self, *args, **kwargs):
        saved.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def test_the_largest_entry_has_names(folder, capsys):
    out, jac = run(capsys)
    sample, m, n = np.unravel_index(np.abs(jac).argmax(), jac.shape)
    entry = f"|d y['{OUTPUTS[m]}'] / d x['pixel {n}']| = {np.abs(jac).max():.4g} in sample {sample}\n"
    assert f"largest  {entry}" in out
    assert f"|d y[{m}] / d x[{n}]|" in run(capsys, model="plain.npz")[0]


# The third output is called 1.
@pytest.mark.parametrize(("index", "number"), [("two", 1), ("one", 0), ("0", 0), ("1", 2), ("2", 2)])
def test_an_index_is_a_name_or_a_number(folder, capsys, index, number):
    out, jac = run(capsys, "--index", index)
    np.testing.assert_allclose(np.load("out.npz")["jac"], jac[:, number], rtol=1e-10, atol=1e-14)
    assert f"row      {number}: y['{OUTPUTS[number]}']\n" in out
    assert f"largest  |d y['{OUTPUTS[number]}'] / d x['pixel " in out


def test_a_name_of_several_outputs_is_no_index(folder, capsys):
    net = fastjac.load("plain.npz").replace(output_names=["a", "b", "a"])
    fastjac.save(net, "twice.npz")
    assert main(["jacobian", "twice.npz", "x.npy", "-o", "out.npz", "--index", "a"]) == 2
    assert "--index is a, but several outputs have this name: give a number\n" in capsys.readouterr().err


def table(out):
    """The lines after the table's title, and the title."""
    title, _, *rows = out[out.index("top ") :].splitlines()
    return title, [row.replace("pixel ", "pixel_").split() for row in rows]


@pytest.mark.parametrize("block", [1 << 22, 1])
def test_the_strongest_inputs_of_the_first_samples(folder, capsys, monkeypatch, block):
    monkeypatch.setattr("fastjac.commands.jacobian.BLOCK_BYTES", block)
    out, jac = run(capsys, "--top", "2")
    title, rows = table(out)
    assert title == "top      the strongest inputs: the first 10 of 25 samples"
    assert len(rows) == 20
    for i, (sample, name, output, value) in enumerate(rows):
        magnitude = np.abs(jac[i // 2])
        n = np.argsort(-magnitude.max(axis=0))[i % 2]
        m = magnitude[:, n].argmax()
        assert (sample, name, output) == (str(i // 2), f"'pixel_{n}'", f"'{OUTPUTS[m]}'")
        assert float(value) == pytest.approx(jac[i // 2, m, n], rel=1e-3)


def test_the_strongest_inputs_of_one_output(folder, capsys):
    np.save("one.npy", np.load("x.npy")[3])
    out, jac = run(capsys, "--top", "9", "--index", "two", inputs="one.npy")
    title, rows = table(out)
    assert title == "top      the strongest inputs: all 1 sample"
    assert [row[1] for row in rows] == [f"'pixel_{n}'" for n in np.argsort(-np.abs(jac[1]))]
    assert {row[2] for row in rows} == {"'two'"}


def test_nan_comes_last_among_the_strongest():
    net = fastjac.Network([(np.ones((4, 2)), None)])
    strongest = Strongest(net, range(2), 4)
    strongest.add(np.array([[[np.nan, 1.0, 3.0, np.nan], [0.0, -2.0, np.nan, np.nan]]]))
    rows = [line.split() for line in str(strongest).splitlines()[2:]]
    assert rows == [["0", "2", "0", "3"], ["0", "1", "1", "-2"], ["0", "0", "1", "0"], ["0", "3", "0", "nan"]]


def test_no_samples_have_no_table(folder, capsys):
    np.save("none.npy", np.zeros((0, 6)))
    out = run(capsys, "--top", "1", inputs="none.npy")[0]
    assert out.endswith("top      the strongest inputs: all 0 samples\n")


MAGIC = {"png": b"\x89PNG\r\n", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("image", [[], ["--image", "2x3"]])
@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_the_ending_names_the_format(folder, capsys, ending, image):
    run(capsys, "--plot", f"p.{ending}", *image)
    assert (folder / f"p.{ending}").read_bytes().startswith(MAGIC[ending.lower()])


def test_a_heat_map_has_names_on_its_axes(folder, capsys, figures):
    _, jac = run(capsys, "--plot", "p.png")
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    assert [label.get_text() for label in axes.get_yticklabels()] == OUTPUTS
    np.testing.assert_allclose(axes.images[0].get_array(), np.abs(jac).mean(axis=0), rtol=1e-10)
    assert axes.get_title() == "mean |d y / d x| of 25 samples"


def test_many_and_long_names_are_thinned_and_shortened(folder, capsys, figures):
    net = fastjac.Network([(np.eye(100, 70), None)], head="identity")
    names = [f"{n} {'long ' * 20}" for n in range(100)]
    fastjac.save(net.replace(input_names=names, output_names=names[:70]), "long.npz")
    np.save("long.npy", np.zeros(100))
    run(capsys, "--plot", "p.png", model="long.npz", inputs="long.npy")
    axes = figures[0].axes[0]
    for labels, step, count in [(axes.get_xticklabels(), 3, 100), (axes.get_yticklabels(), 3, 70)]:
        texts = [label.get_text() for label in labels]
        assert [int(text.split()[0]) for text in texts] == list(range(0, count, step))
        assert all(len(text) <= 24 for text in texts)


@pytest.mark.parametrize("samples", [1, 25])
def test_an_image_for_each_output_is_signed(folder, capsys, figures, samples):
    np.save("few.npy", np.load("x.npy")[:samples])
    _, jac = run(capsys, "--plot", "p.png", "--image", "2x3", inputs="few.npy")
    pictures = [axes for axes in figures[0].axes if axes.get_title()]
    titles = [axes.get_title() for axes in pictures]
    assert titles == (["input", *OUTPUTS] if samples == 1 else OUTPUTS)
    largest = np.abs(jac.mean(axis=0)).max()
    for axes, row in zip(pictures[-3:], jac.mean(axis=0), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), row.reshape(2, 3), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(axes.images[0].get_clim(), [-largest, largest])
    if samples == 1:
        assert np.array_equal(pictures[0].images[0].get_array().ravel(), np.load("few.npy")[0])


def test_an_image_of_one_output(folder, capsys, figures):
    run(capsys, "--plot", "p.png", "--image", "3x2", "--index", "two")
    assert [axes.get_title() for axes in figures[0].axes if axes.get_title()] == ["two"]


def test_too_many_images_are_refused(folder, capsys):
    fastjac.save(fastjac.Network([(np.ones((6, 101)), None)]), "wide.npz")
    options = ["-o", "out.npz", "--plot", "p.png", "--image", "2x3"]
    assert main(["jacobian", "wide.npz", "x.npy", *options]) == 2
    assert "at most 100 pictures go in one file, and the network has 101 outputs" in capsys.readouterr().err
    assert main(["jacobian", "wide.npz", "x.npy", *options, "--index", "100"]) == 0


@pytest.mark.parametrize("image", [[], ["--image", "2x3"]])
def test_dollar_signs_in_names_are_no_formulas(folder, capsys, image):
    net = fastjac.load("plain.npz")
    names = {"input_names": [f"${{{n}$" for n in range(6)], "output_names": ["$a_{$", "$^$", "$"]}
    fastjac.save(net.replace(**names), "dollars.npz")
    run(capsys, "--plot", "p.svg", *image, model="dollars.npz")
    assert "$a_{$" in (folder / "p.svg").read_text()
