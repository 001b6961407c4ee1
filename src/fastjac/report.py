"""What a comparison of Jacobians with finite differences found, at one sample or at many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fastjac import notebook


@dataclass(frozen=True)
class JacobianReport:
    """The result of `fastjac.check_jacobian`; true in a condition exactly if ``ok``.

    Attributes
    ----------
    ok : bool
        Whether at least one column was checked at every sample, and every entry of the checked columns is
        within its tolerance.
    error : float
        ``abs(analytic - numeric)`` of the worst entry, the one whose error is largest in units of its
        tolerance. NaN if that entry is NaN, or if no column was checked.
    where : tuple of int, or None
        Output and input ``(m, n)`` of the worst entry; None if no column was checked.
    analytic, numeric : float
        The Jacobian's value and the central difference there.
    tolerance : float
        The error allowed there.
    checked, skipped : int
        Number of columns compared, and number of columns where finite differences say nothing, because
        x is at or next to a corner. Of a batch, the sums over all samples.
    entry : str
        The worst entry with the network's names, where it has some: ``jac['seven', 'pixel 3']``.
    sample : int or None
        The worst sample of a batch, which the entry is of: the one with the largest error in units of the
        tolerance; if none disagrees, one that could not be checked, if there is one.
    reports : tuple of JacobianReport
        Of each sample of a batch.
    """

    ok: bool
    error: float
    where: tuple[int, int] | None
    analytic: float
    numeric: float
    tolerance: float
    checked: int
    skipped: int
    entry: str = ""
    sample: int | None = None
    reports: tuple[JacobianReport, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        """Return ``ok``."""
        return self.ok

    def __str__(self) -> str:
        """Return the verdict, the worst entry and the counts, a line each."""
        lines = [self._verdict()]
        if self.where is not None:
            lines.append(
                f"largest error: {self.error:.2e} at {self._place()} (tolerance {self.tolerance:.2e}), "
                f"analytic {self.analytic:.10g}, numeric {self.numeric:.10g}"
            )
        return "\n".join([*lines, self._counts()])

    def _repr_html_(self) -> str:
        rows = []
        if self.where is not None:
            values = [f"{self.analytic:.10g}", f"{self.numeric:.10g}"]
            rows.append([self._place(), f"{self.error:.2e}", f"{self.tolerance:.2e}", *values])
        header = ["worst entry", "error", "tolerance", "analytic", "numeric"]
        return notebook.table(self._verdict(), header, rows, self._counts())

    def _verdict(self) -> str:
        here = "here" if self.sample is None else f"at sample {self.sample}"
        if self.where is None:
            verdict = f"Jacobian not checked: finite differences say nothing {here}"
        else:
            verdict = f"Jacobian {'agrees' if self.ok else 'DISAGREES'} with central differences"
        if self.sample is None:
            return verdict
        agreeing = f"{sum(report.ok for report in self.reports):,} of {len(self.reports):,} samples"
        return f"{verdict} at {agreeing}" if self.ok else f"{verdict}; it agrees at {agreeing}"

    def _place(self) -> str:
        return self.entry if self.sample is None else f"{self.entry} of sample {self.sample}"

    def _counts(self) -> str:
        return f"columns checked: {self.checked:,}, skipped at corners: {self.skipped:,}"


def of_batch(reports: Sequence[JacobianReport]) -> JacobianReport:
    """Return the report over all samples of a batch, given that of each."""
    worst = max(range(len(reports)), key=lambda number: _badness(reports[number]))
    return replace(
        reports[worst],
        ok=all(report.ok for report in reports),
        checked=sum(report.checked for report in reports),
        skipped=sum(report.skipped for report in reports),
        sample=worst,
        reports=tuple(reports),
    )


def _badness(report: JacobianReport) -> tuple[int, float]:
    """Return the key that sorts reports, worst last: those that disagree after those of nothing checked."""
    if report.where is None:
        return 1, 0.0
    share = report.error / report.tolerance if report.error else 0.0
    return (0 if report.ok else 2), math.inf if math.isnan(share) else share
