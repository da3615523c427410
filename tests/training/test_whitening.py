"""Whitening: what comes out, by hand and on clouds of known shape."""

import numpy as np
import pytest

from damagewatch_training.embedder import whitening


def cloud(rng: np.random.Generator, count: int = 4000) -> np.ndarray:
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    return (rng.normal(size=(count, 5)) * [8.0, 4.0, 2.0, 1.0, 0.5]) @ turn + 3


def projected(fitted: whitening.Whitening, x: np.ndarray) -> np.ndarray:
    return (x - fitted.mean) @ fitted.projection.T


def test_principal_components_at_power_half_have_equal_variance() -> None:
    x = cloud(np.random.default_rng(0))
    covariance = np.cov(projected(whitening.principal(x, 3), x).T, bias=True)
    assert np.allclose(covariance, np.eye(3), atol=0.1)  # less than 1: the spectrum is shrunk a little


def test_power_zero_only_turns_and_a_quarter_goes_half_the_way() -> None:
    x = cloud(np.random.default_rng(1))
    turned = projected(whitening.principal(x, 5, power=0), x)
    assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x - x.mean(0), axis=1))
    spread = [projected(whitening.principal(x, 2, power), x).std(0) for power in (0, 0.25, 0.5)]
    ratios = [float(a / b) for a, b in spread]
    assert ratios[0] > 1.8
    assert ratios[1] == pytest.approx(ratios[0] ** 0.5, rel=0.05)
    assert ratios[2] == pytest.approx(1, abs=0.05)


def test_learned_whitening_ignores_what_differs_within_an_identity() -> None:
    rng = np.random.default_rng(2)
    identity = np.repeat(np.arange(200), 4)
    x = np.zeros((800, 8))
    x[:, :6] = rng.normal(size=(200, 6))[identity]  # tells identities apart
    x[:, 6:] = 5 * rng.normal(size=(800, 2))  # only noise, and much of it
    x += 0.05 * rng.normal(size=x.shape)

    def found(embeddings: np.ndarray) -> float:
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        alike = unit @ unit.T - 2 * np.eye(800)
        return float((identity[alike.argmax(1)] == identity).mean())

    assert found(x - x.mean(0)) < 0.5
    assert found(whitening.learned(x, identity, 6)(x)) > 0.9


def test_embeddings_leave_at_unit_length_in_the_wanted_dimension() -> None:
    x = cloud(np.random.default_rng(3), 50)
    out = whitening.principal(x, 2)(x)
    assert out.shape == (50, 2)
    assert out.dtype == np.float32
    assert np.allclose(np.linalg.norm(out, axis=1), 1)


def test_more_dimensions_than_samples_stay_finite() -> None:
    x = np.random.default_rng(4).normal(size=(6, 40))
    assert np.isfinite(whitening.principal(x, 40)(x)).all()
    assert np.isfinite(whitening.learned(x, np.array([0, 0, 1, 1, 2, 2]), 40)(x)).all()


def test_what_cannot_be_whitened_is_refused() -> None:
    x = np.eye(4)
    with pytest.raises(ValueError, match="5 dimensions of 4"):
        whitening.principal(x, 5)
    with pytest.raises(ValueError, match="too few"):
        whitening.principal(x[:1], 2)
    with pytest.raises(ValueError, match="no identity has two"):
        whitening.learned(x, np.arange(4), 2)
