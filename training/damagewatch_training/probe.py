"""What frozen embeddings know: a linear head for each labelled column of a table, class or number.

A linear head learns little of its own, so what it gets right was in the embeddings already (Alain and Bengio, arXiv
1610.01644).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from damagewatch_training.data.dataset import DataRefusedError

Kind = Literal["class", "number"]

NAME = "name"
FOLDS = 5
FEWEST = 10
"""Rows of a column that can be probed."""
PARTS = 5
"""Into how many ranges a number's values are parted, equally many in each."""
MOST_ROWS = 10_000_000


class ProbeRefusedError(DataRefusedError):
    """A table or features that cannot be used; the message names the file and the column."""


@dataclass(frozen=True, slots=True)
class Value:
    """Figures of one class, or of one range of a number.

    `right` is the share that was said rightly (class), or the mean absolute error (number); `sure` the share of those
    said to be this class that are (class alone).
    """

    value: str
    rows: int
    right: float
    sure: float | None = None


@dataclass(frozen=True, slots=True)
class Probed:
    """Figures of one column, on rows that its head was not fitted to.

    Class: `accuracy` is the share right, `balanced` the mean over the classes, `baseline` what always saying the most
    frequent class gets right. Number: `accuracy` is R squared (1 is perfect, 0 as good as the mean), `error` the mean
    absolute error, `baseline` that of always saying the median.
    """

    column: str
    kind: Kind
    rows: int
    accuracy: float
    baseline: float
    values: tuple[Value, ...]
    balanced: float | None = None
    error: float | None = None

    def entry(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Embeddings float32 (N, D) and the text of each column, N long; an empty text is unlabelled."""

    x: NDArray[np.float32]
    columns: dict[str, list[str]]

    def kind(self, column: str) -> Kind:
        """A number where all labels read as finite numbers and more than 10 differ, else a class."""
        labels = [text for text in self.columns[column] if text]
        numbers = all(_number(text) is not None for text in labels)
        return "number" if numbers and len(set(labels)) > 10 else "class"


def read(features: Path, table: Path) -> Table:
    """Joins features with the rows of a table by name.

    Args:
        features: `.npz` with `name` (N,) and `x` (N, D), as `evaluate` takes and `encode` writes them.
        table: CSV with a column `name`; names without features are left out.

    Raises:
        ProbeRefusedError: One of them cannot be read, or they have no name in common.
    """
    try:
        with np.load(features, allow_pickle=False) as stored:
            names, x = stored["name"], np.asarray(stored["x"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ProbeRefusedError(f"{features}: not a .npz with `name` and `x`: {error}") from None
    if x.ndim != 2 or names.shape != (len(x),) or not np.isfinite(x).all():
        raise ProbeRefusedError(f"{features}: `x` must be finite (N, D), `name` (N,)")
    place = {str(name): row for row, name in enumerate(names.tolist())}
    rows: list[dict[str, str]] = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restval="", restkey="")
            if NAME not in (reader.fieldnames or ()):
                raise ProbeRefusedError(f"{table}: no column `{NAME}`")
            for row in reader:
                if row[NAME] in place:
                    rows.append(row)
                if len(rows) > MOST_ROWS:
                    raise ProbeRefusedError(f"{table}: more than {MOST_ROWS:,} rows")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProbeRefusedError(f"{table}: {error}") from None
    if not rows:
        raise ProbeRefusedError(f"{table}: no name of {features} is in it")
    chosen = x[[place[row[NAME]] for row in rows]]
    columns = [column for column in reader.fieldnames or () if column]
    return Table(chosen, {column: [row[column].strip() for row in rows] for column in columns})


def probe(
    table: Table,
    column: str,
    *,
    kind: Kind | None = None,
    group: str = NAME,
    split: str | None = None,
    strength: float = 1.0,
) -> Probed:
    """Fits a head and says what it gets right on rows that it has not seen.

    Args:
        table: embeddings with labels.
        column: to be told.
        kind: class or number; None: by the labels.
        group: rows with equal text here, such as a claim, are never on both sides.
        split: a column of "train" and other words: fitted to the former, judged on the others. None: five folds.
        strength: of the regularisation.

    Raises:
        ProbeRefusedError: there is no such column, too few rows are labelled, or all alike.
    """
    for name in (column, group, *([split] if split else [])):
        if name not in table.columns:
            raise ProbeRefusedError(f"no column `{name}`; there are {', '.join(table.columns)}")
    kind = kind or table.kind(column)
    texts = table.columns[column]
    kept = np.array([i for i, text in enumerate(texts) if text], np.int64)
    if len(kept) < FEWEST:
        raise ProbeRefusedError(
            f"column `{column}`: {len(kept)} rows are labelled, at least {FEWEST} are wanted"
        )
    x = table.x[kept].astype(np.float64)
    labels = [texts[i] for i in kept]
    if len(set(labels)) < 2:
        raise ProbeRefusedError(f"column `{column}`: every label is {labels[0]!r}")
    y: NDArray[Any] = np.array(labels)
    if kind == "number":
        numbers = [_number(text) for text in labels]
        if None in numbers:
            raise ProbeRefusedError(f"column `{column}`: {labels[numbers.index(None)]!r} is not a number")
        y = np.array(numbers, np.float64)
    groups = np.array([table.columns[group][i] or f"row {i}" for i in kept])
    words = None if split is None else np.array([table.columns[split][i] for i in kept])
    said, judged = _held_out(x, y, groups, words, kind, strength, column)
    found = _classes if kind == "class" else _numbers
    return found(column, y[judged], said, y)


def _held_out(
    x: NDArray[np.float64],
    y: NDArray[Any],
    groups: NDArray[np.str_],
    split: NDArray[np.str_] | None,
    kind: Kind,
    strength: float,
    column: str,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """What the heads say of rows that they were not fitted to, and which rows those are."""
    if split is not None:
        fitted, asked = np.flatnonzero(split == "train"), np.flatnonzero(split != "train")
        parts = [(fitted, asked[~np.isin(groups[asked], groups[fitted])])]
    else:
        folds = min(FOLDS, len(np.unique(groups)))
        if folds < 2:
            raise ProbeRefusedError(f"column `{column}`: all rows are of one group")
        parts = list(GroupKFold(folds).split(x, y, groups))
    said, judged = [], []
    for fitted, asked in parts:
        if len(asked) == 0 or len(np.unique(y[fitted])) < 2:
            raise ProbeRefusedError(
                f"column `{column}`: a side of the split has no rows, or labels all alike"
            )
        head = (
            LogisticRegression(C=1 / strength, class_weight="balanced", max_iter=1000)
            if kind == "class"
            else Ridge(alpha=strength * x.shape[1])
        )
        model = make_pipeline(StandardScaler(), head).fit(x[fitted], y[fitted])
        said.append(model.predict(x[asked]))
        judged.append(asked)
    return np.concatenate(said), np.concatenate(judged)


def _classes(column: str, truth: NDArray[Any], said: NDArray[Any], known: NDArray[Any]) -> Probed:
    right = said == truth
    values = tuple(
        Value(
            str(value),
            int((truth == value).sum()),
            float(right[truth == value].mean()),
            float(right[said == value].mean()) if (said == value).any() else None,
        )
        for value in np.unique(truth)
    )
    words, counts = np.unique(known, return_counts=True)
    return Probed(
        column,
        "class",
        len(truth),
        float(right.mean()),
        float((truth == words[counts.argmax()]).mean()),
        values,
        balanced=float(np.mean([value.right for value in values])),
    )


def _numbers(column: str, truth: NDArray[Any], said: NDArray[Any], known: NDArray[Any]) -> Probed:
    away = np.abs(said - truth)
    edges = np.unique(np.quantile(truth, np.linspace(0, 1, PARTS + 1)))
    inside = np.clip(np.searchsorted(edges, truth, "right") - 1, 0, max(len(edges) - 2, 0))
    values = tuple(
        Value(
            f"{truth[inside == part].min():g} to {truth[inside == part].max():g}",
            int((inside == part).sum()),
            float(away[inside == part].mean()),
        )
        for part in np.unique(inside)
    )
    spread = float(((truth - truth.mean()) ** 2).sum())
    return Probed(
        column,
        "number",
        len(truth),
        1 - float((away**2).sum()) / spread if spread else 0.0,
        float(np.abs(truth - np.median(known)).mean()),
        values,
        error=float(away.mean()),
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def columns(table: Table, excluded: Sequence[str]) -> list[str]:
    """The columns that may be asked for."""
    return [column for column in table.columns if column not in {NAME, *excluded}]
