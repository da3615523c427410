import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from damagewatch_training.evaluate import metrics

SCORES = st.integers(-3, 3).map(float)  # few values, so that there are ties


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    similarity = draw(arrays(np.float64, shape, elements=SCORES))
    relevant = draw(arrays(np.bool_, shape).filter(lambda a: a.any()))
    return similarity, relevant


def naive(similarity: np.ndarray, relevant: np.ndarray, k: int) -> tuple[float, float]:
    first_k, precisions = [], []
    for scores, right in zip(similarity.tolist(), relevant.tolist(), strict=True):
        if not any(right):
            continue
        order = sorted(range(len(scores)), key=lambda g: (-scores[g], g))
        first_k.append(any(right[g] for g in order[:k]))
        found, total = 0, 0.0
        for rank, g in enumerate(order, 1):
            if right[g]:
                found += 1
                total += found / rank
        precisions.append(total / found)
    return sum(first_k) / len(first_k), sum(precisions) / len(precisions)


@given(rankings(), st.integers(1, 8))
def test_retrieval_is_that_of_a_naive_loop(ranking: tuple[np.ndarray, np.ndarray], k: int) -> None:
    found = metrics.retrieval(*ranking, ks=(k,))
    cmc, precision = naive(*ranking, k)
    assert found.cmc[k] == pytest.approx(cmc)
    assert found.mean_average_precision == pytest.approx(precision)
    assert found.queries == ranking[1].any(axis=1).sum()


def test_retrieval_by_hand() -> None:
    # One query; the right items stand at ranks 2 and 4: precision 1/2 and 2/4.
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    found = metrics.retrieval(similarity, np.array([[False, True, False, True]]), ks=(1, 2))
    assert found.cmc == {1: 0.0, 2: 1.0}
    assert found.mean_average_precision == pytest.approx(0.5)


def test_nothing_to_find_is_refused() -> None:
    with pytest.raises(ValueError, match="no query"):
        metrics.retrieval(np.zeros((2, 3)), np.zeros((2, 3), bool))


@given(
    st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=20),
    st.sampled_from([0.5, 0.9, 0.95, 1.0]),
)
def test_recall_at_precision_is_that_of_trying_every_threshold(
    pairs: list[tuple[float, bool]], precision: float
) -> None:
    scores, right = np.array([s for s, _ in pairs]), np.array([r for _, r in pairs])
    best = 0.0
    for threshold in scores:
        above = scores >= threshold
        if right.any() and right[above].mean() >= precision:
            best = max(best, right[above].sum() / right.sum())
    assert metrics.recall_at_precision(scores, right, precision) == pytest.approx(best)
