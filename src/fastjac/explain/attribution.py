"""What a method of attribution returns: numbers with names, and ways to look at them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """How much each of N inputs moves each of M outputs, of one sample or of many.

    Wherever NumPy takes an array it takes this, as its ``values``; so does indexing.

    Attributes
    ----------
    method : str
        The function that made it.
    values : ndarray, (M, N) or (..., M, N)
        Signed: positive where more of the input makes more of the output.
    names : tuple of str
        Of the inputs.
    outputs : tuple of str
        Of the outputs.
    x : ndarray, (N,) or (..., N), or None
        The samples; None where the values are of a whole data set.
    completeness : ndarray of float64, (M,) or (..., M), or None
        The sum over the inputs less what the output changes from the baseline to ``x``: 0 if the method were
        exact. None for methods that promise no such sum.
    """

    method: str
    values: Array
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    x: Array | None = None
    completeness: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``values``."""
        return self.values.shape

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype, copy=copy)

    def __getitem__(self, key: Any) -> Any:
        return self.values[key]

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        """Return the method, the shape, and the largest completeness error where there is one."""
        error = ""
        if self.completeness is not None and self.completeness.size:
            error = f", completeness error at most {np.abs(self.completeness).max():.1e}"
        return f"<{self.method} {self.shape} {self.values.dtype}{error}>"

    def sample(self, index: int | tuple[int, ...]) -> Attribution:
        """Return the attribution (M, N) of one sample of a batch.

        Parameters
        ----------
        index : int or tuple of int
            Of the sample.

        Raises
        ------
        ValueError
            If this is of one sample already, or ``index`` leaves more than one.
        IndexError
            If there is no such sample.
        """
        if self.values.ndim == 2:
            raise ValueError(f"{self.method} of shape {self.shape} has no samples to choose from")
        values = self.values[index]
        if values.ndim != 2:
            raise ValueError(f"index is {index!r}, which leaves the shape {values.shape}, expected (M, N)")
        x = None if self.x is None else self.x[index]
        error = None if self.completeness is None else self.completeness[index]
        return replace(self, values=values, x=x, completeness=error)

    def top(self, output: int | str, k: int = 5) -> list[tuple[str, float]]:
        """Return the inputs that move an output most, the strongest first.

        Parameters
        ----------
        output : int or str
            Its number or name.
        k : int, default 5
            How many inputs at most.

        Returns
        -------
        list of (str, float)
            Name and signed value, in the order of magnitude; NaN last.

        Raises
        ------
        ValueError
            If there are many samples, no such output, or ``k`` is less than 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        row = self._single()[self._number(output)]
        order = np.argsort(-np.abs(row), kind="stable")[:k]
        return [(self.names[n], float(row[n])) for n in order]

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame with a column for each input and a row for each output.

        Rows of many samples are labelled by ``(sample, output)``, samples numbered in order.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        rows: Any = pd.Index(self.outputs, name="output")
        if self.values.ndim > 2:
            count = int(np.prod(self.shape[:-2]))
            rows = pd.MultiIndex.from_product([range(count), self.outputs], names=["sample", "output"])
        columns = pd.Index(self.names, name="input")
        return pd.DataFrame(self.values.reshape(-1, len(self.names)), rows, columns)

    def plot(
        self, output: int | str | None = None, *, shape: tuple[int, int] | None = None, k: int = 10
    ) -> Figure:
        """Return a matplotlib figure of one sample's attribution, a panel for each output.

        Parameters
        ----------
        output : int or str, optional
            Number or name of the one output to draw. Default: all.
        shape : (int, int), optional
            Rows and columns of the picture that the inputs are. Each panel is such a picture then, red where
            positive and blue where negative, on one scale with 0 in its middle, beside the input itself.
            Default: bars of the strongest inputs by name.
        k : int, default 10
            How many bars at most.

        Raises
        ------
        ValueError
            If there are many samples, no such output, ``shape`` does not have N pixels, or ``k`` is less
            than 1.
        ImportError
            If matplotlib is not installed: ``pip install 'fastjac[plot]'``.
        """
        self._single()
        if shape is not None and (len(shape) != 2 or shape[0] * shape[1] != len(self.names)):
            raise ValueError(
                f"shape is {tuple(shape)}, expected two numbers whose product is {len(self.names)}"
            )
        chosen = range(len(self.outputs)) if output is None else [self._number(output)]
        from fastjac.explain import figures

        if shape is None:
            return figures.bars(self, chosen, k)
        return figures.pictures(self, chosen, shape)

    def _single(self) -> Array:
        """Return the values (M, N) of the one sample."""
        if self.values.ndim != 2:
            raise ValueError(
                f"{self.method} has shape {self.shape}: choose a sample first, such as .sample(0)"
            )
        return self.values

    def _number(self, output: int | str) -> int:
        """Return the number of an output that is given by number or name."""
        if isinstance(output, str):
            if output not in self.outputs:
                raise ValueError(f"output is {output!r}, expected one of {', '.join(self.outputs)}")
            return self.outputs.index(output)
        if not 0 <= output < len(self.outputs):
            raise ValueError(f"output is {output}, expected 0 to {len(self.outputs) - 1}")
        return output
