"""The training: it learns what is there to learn, and says so when there is nothing."""

from __future__ import annotations

import math
import random

import pytest

from jobs.train_model import NAMES, User, auc, fit, log_loss, train


def users(number: int, strength: float, seed: int = 7) -> list[User]:
    """Users of whom those with a high first feature buy more often, the more so with `strength`."""
    rng = random.Random(seed)
    made = []
    for each in range(number):
        values = [rng.gauss(0, 1) for _ in NAMES]
        chance = 1 / (1 + math.exp(-strength * values[0]))
        made.append(User(f"u{each:04}", tuple(values), rng.random() < chance))
    return made


def test_it_learns_what_decides() -> None:
    learned = train(users(600, strength=3))
    assert learned is not None
    model, figures = learned
    assert model.weights[0] > 1
    assert max(map(abs, model.weights[1:])) < 0.4
    assert figures.log_loss < 0.75 * figures.baseline_log_loss
    assert figures.auc is not None
    assert figures.auc > 0.85
    assert figures.training_count + figures.test_count == 600


def test_it_learns_nothing_from_noise() -> None:
    learned = train(users(600, strength=0))
    assert learned is not None
    model, figures = learned
    assert max(map(abs, model.weights)) < 0.3
    assert figures.log_loss == pytest.approx(figures.baseline_log_loss, abs=0.05)


def test_the_same_users_give_the_same_model() -> None:
    assert train(users(100, strength=1)) == train(users(100, strength=1))


def test_it_does_not_learn_from_those_it_is_measured_on() -> None:
    known = [user for user in users(200, strength=2) if not user.is_test]
    unseen = [user for user in users(200, strength=2) if user.is_test]
    assert 20 < len(unseen) < 80
    learned = train([*known, *unseen])
    flipped = train([*known, *(User(u.user_id, u.values, not u.has_bought) for u in unseen)])
    assert learned is not None
    assert flipped is not None
    assert flipped[0] == learned[0] == fit(known)
    assert flipped[1].log_loss > learned[1].log_loss


def test_too_few_or_alike_users_are_nothing_to_learn_from() -> None:
    assert train([]) is None
    assert train(users(19, strength=1)) is None
    assert train([User(u.user_id, u.values, has_bought=False) for u in users(100, strength=1)]) is None


def test_a_feature_that_all_share_has_no_weight() -> None:
    alike = [User(u.user_id, (u.values[0], *[1.0] * (len(NAMES) - 1)), u.has_bought) for u in users(80, 2)]
    model = fit(alike)
    assert model.weights[1:] == (0.0,) * (len(NAMES) - 1)
    assert 0 < model.probability(alike[0].values) < 1


def test_the_measures() -> None:
    assert auc([True, False], [0.9, 0.1]) == 1
    assert auc([True, False], [0.1, 0.9]) == 0
    assert auc([True, False, False], [0.5, 0.5, 0.1]) == 0.75
    assert auc([True, True], [0.5, 0.5]) is None
    assert log_loss([True, False], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert log_loss([True], [0.0]) < 30
