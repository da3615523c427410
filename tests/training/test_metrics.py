import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from damagewatch_training.calibrate.reliability import recall_at_precision
from damagewatch_training.evaluate import metrics

SCORES = st.integers(-3, 3).map(float)  # few values, so that there are ties

Task = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Similarities, right items, and junk that is never right."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    similarity = draw(arrays(np.float64, shape, elements=SCORES))
    relevant = draw(arrays(np.bool_, shape).filter(lambda a: a.any()))
    junk = draw(arrays(np.bool_, shape)) & ~relevant
    return similarity, relevant, junk


def ranking(task: Task, query: int) -> list[bool]:
    """Whether each item of a ranking is right, the slow way."""
    similarity, relevant, junk = (part[query].tolist() for part in task)
    items = [g for g in range(len(similarity)) if not junk[g]]
    return [relevant[g] for g in sorted(items, key=lambda g: (-similarity[g], relevant[g]))]


@given(tasks(), st.integers(1, 9))
def test_ranks_are_those_of_a_naive_loop(task: Task, k: int) -> None:
    ranks, valid = metrics.rank(*task)
    assert valid.tolist() == [q for q in range(len(task[0])) if any(task[1][q])]
    for number, query in enumerate(valid):
        order = ranking(task, query)
        right, within = sum(order), sum(order[:k])
        precisions = [sum(order[: i + 1]) / (i + 1) for i, hit in enumerate(order) if hit]
        assert ranks.any_hit(k)[number] == (within > 0)
        assert ranks.all_hits(k)[number] == (within == min(k, right))
        assert ranks.recall(k)[number] == pytest.approx(within / right)
        assert ranks.average_precision()[number] == pytest.approx(sum(precisions) / right)
        precision, recall = within / k, within / right
        f1 = 2 * precision * recall / (precision + recall) if within else 0.0
        assert ranks.f1(k)[number] == pytest.approx(f1)


@given(tasks(), st.integers(1, 9))
def test_no_ranking_is_better_than_what_is_feasible(task: Task, k: int) -> None:
    ranks, _ = metrics.rank(*task)
    perfect, _ = metrics.rank(task[1].astype(float), *task[1:])
    for ours, best in ((ranks.recall, ranks.feasible_recall), (ranks.f1, ranks.feasible_f1)):
        assert (ours(k) <= best(k) + 1e-12).all()
    assert perfect.recall(k) == pytest.approx(ranks.feasible_recall(k))
    assert perfect.f1(k) == pytest.approx(ranks.feasible_f1(k))
    assert perfect.all_hits(k).all()
    assert perfect.average_precision() == pytest.approx(np.ones(len(perfect.of)))


def test_retrieval_by_hand() -> None:
    # One query; the right items stand at ranks 2 and 4: precision 1/2 and 2/4.
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    relevant = np.array([[False, True, False, True]])
    found = metrics.retrieval(similarity, relevant, ks=(1, 2))
    assert found.cmc == {1: 0.0, 2: 1.0}
    assert found.mean_average_precision == pytest.approx(0.5)
    ranks, _ = metrics.rank(similarity, relevant)
    assert [ranks.all_hits(k)[0] for k in (1, 2, 3, 4)] == [0, 0, 0, 1]
    assert [ranks.feasible_recall(k)[0] for k in (1, 2, 3)] == [0.5, 1, 1]
    assert [ranks.feasible_f1(k)[0] for k in (1, 2, 4)] == pytest.approx([2 / 3, 1, 2 / 3])


def test_junk_is_neither_right_nor_wrong() -> None:
    similarity = np.array([[0.9, 0.8, 0.7]])
    relevant = np.array([[False, False, True]])
    assert metrics.retrieval(similarity, relevant).cmc[1] == 0
    assert metrics.retrieval(similarity, relevant, np.array([[True, True, False]])).cmc[1] == 1


def test_a_method_that_tells_nothing_apart_finds_nothing_first() -> None:
    relevant = np.eye(3, dtype=bool)
    found = metrics.retrieval(np.zeros((3, 3)), relevant, ks=(1, 3))
    assert found.cmc == {1: 0.0, 3: 1.0}


def test_nothing_to_find_is_refused() -> None:
    with pytest.raises(ValueError, match="no query"):
        metrics.retrieval(np.zeros((2, 3)), np.zeros((2, 3), bool))


def test_similarities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        metrics.retrieval(np.array([[np.nan, 1.0]]), np.array([[True, False]]))


def naive_recall(pairs: list[tuple[float, bool]], precision: float) -> float:
    best, total = 0.0, sum(right for _, right in pairs)
    for threshold, _ in pairs:
        above = [right for score, right in pairs if score >= threshold]
        if total and sum(above) / len(above) >= precision:
            best = max(best, sum(above) / total)
    return best


def naive_average_precision(pairs: list[tuple[float, bool]]) -> float:
    """The sum over distinct thresholds of precision times what it adds to recall."""
    total, area, before = sum(right for _, right in pairs), 0.0, 0.0
    for threshold in sorted({score for score, _ in pairs}, reverse=True):
        above = [right for score, right in pairs if score >= threshold]
        area += sum(above) / len(above) * (sum(above) / total - before)
        before = sum(above) / total
    return area


@given(tasks(), st.data(), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_a_bootstrap_is_that_of_repeating_the_queries(
    task: Task, data: st.DataObject, precision: float
) -> None:
    similarity, relevant, junk = task
    queries = len(similarity)
    clusters = np.array(data.draw(st.lists(st.integers(0, 2), min_size=queries, max_size=queries)))
    times = np.array([data.draw(st.lists(st.integers(0, 3), min_size=3, max_size=3))], float)
    pooled = metrics.pool(similarity, relevant, junk, clusters)
    count = pooled.above_right.shape[1]
    pairs = [
        (float(similarity[q, g]), bool(relevant[q, g]))
        for q in range(queries)
        for g in range(similarity.shape[1])
        if not junk[q, g]
        for _ in range(int(times[0, clusters[q]]))
    ]
    if any(right for _, right in pairs):
        weights = times[:, :count]
        assert pooled.recall_at(precision, weights)[0] == pytest.approx(naive_recall(pairs, precision))
        assert pooled.average_precision(weights)[0] == pytest.approx(naive_average_precision(pairs))


def test_resamples_draw_as_many_clusters_as_there_are() -> None:
    drawn = metrics.resamples(7, 50, seed=1)
    assert drawn.shape == (51, 7)
    assert (drawn[0] == 1).all()
    assert (drawn.sum(axis=1) == 7).all()


def test_figures_of_a_resample_are_the_means_of_its_queries() -> None:
    # Two damages, of two queries each: the first is always found first, the second never before rank 3.
    similarity = np.array([[9, 1, 2, 3], [9, 3, 2, 1], [1, 2, 8, 9], [1, 2, 8, 9.0]])
    relevant = np.array([[1, 0, 0, 0]] * 2 + [[0, 1, 0, 0]] * 2, bool)
    clusters = np.array([0, 0, 1, 1])
    ranks, _ = metrics.rank(similarity, relevant)
    weights = np.array([[1, 1], [2, 0], [0, 2]], float)
    found = metrics.figures(ranks, metrics.pool(similarity, relevant, None, clusters), clusters, weights)
    assert found["any_hit_at_1"].tolist() == [0.5, 1, 0]
    assert found["map"] == pytest.approx([(1 + 1 / 3) / 2, 1, 1 / 3])
    # The first damage's pairs score 9, as do two wrong ones of the second damage.
    assert found["recall_at_precision_50"].tolist() == [0.5, 1, 0]
    assert found["pooled_ap"][1] == 1


@given(
    st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=20),
    st.sampled_from([0.5, 0.9, 0.95, 1.0]),
)
def test_recall_at_precision_is_that_of_trying_every_threshold(
    pairs: list[tuple[float, bool]], precision: float
) -> None:
    scores, right = np.array([s for s, _ in pairs]), np.array([r for _, r in pairs])
    found = recall_at_precision(scores, right, np.ones(len(pairs)), precision)
    assert found == pytest.approx(naive_recall(pairs, precision), abs=1e-4)
