"""Trains the model of who will buy: a logistic regression on `fct_user_features`.

    WAREHOUSE_DSN=postgresql://... MARTS_SCHEMA=dev_core python train_model.py

It learns from the users whose label is final, three quarters of them, and measures on the others,
which are told by a hash of their keys: the same for every training. What it has learned and how good
that is becomes a row of `<schema>.model_runs`, and is printed. A model that is no better than the
share of buyers says so: compare `log_loss` with `baseline_log_loss`.

Exit codes: 0, also when there are too few users to learn from, which is no row; 1 when the warehouse
refuses; 2 when a setting is missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Identifier

NUMBERS = ("page_view_count", "product_view_count", "active_day_count", "minutes_to_sign_up")
# What users are compared with: those who came directly, with a phone.
SOURCES = ("google", "newsletter", "facebook", "partner")
DEVICES = ("desktop", "tablet")
NAMES = (*NUMBERS, *SOURCES, *DEVICES)
FEWEST = 20
STEPS, RATE, PENALTY = 2_000, 0.3, 0.02

_RUNS = """
create table if not exists {runs} (
    trained_at timestamp with time zone primary key default clock_timestamp(),
    training_count integer not null, test_count integer not null, buyer_count integer not null,
    log_loss double precision not null, baseline_log_loss double precision not null,
    auc double precision, coefficients jsonb not null
)
"""


@dataclass(frozen=True)
class User:
    """A user with a final label; `values` are in the order of NAMES."""

    user_id: str
    values: tuple[float, ...]
    has_bought: bool

    @property
    def is_test(self) -> bool:
        """Whether the model must not learn from this user."""
        return hashlib.sha256(self.user_id.encode()).digest()[0] < 64


@dataclass(frozen=True)
class Model:
    """Weights of standardised features, after `intercept`; `means` and `scales` standardise them."""

    intercept: float
    weights: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]

    def probability(self, values: Sequence[float]) -> float:
        """How likely somebody with these features is to buy."""
        features = zip(self.weights, values, self.means, self.scales, strict=True)
        return _sigmoid(self.intercept + sum(w * (v - m) / s for w, v, m, s in features))


@dataclass(frozen=True)
class Figures:
    """How good a model is on users that it has not seen; `auc` is None when all of them are alike."""

    training_count: int
    test_count: int
    buyer_count: int
    log_loss: float
    baseline_log_loss: float
    auc: float | None


def main() -> None:
    """Train on the warehouse that the environment names."""
    if not (dsn := os.environ.get("WAREHOUSE_DSN")):
        print("train_model: the environment variable WAREHOUSE_DSN is not set.", file=sys.stderr)
        raise SystemExit(2)
    schema = os.environ.get("MARTS_SCHEMA") or "dev_core"
    try:
        with closing(psycopg2.connect(dsn)) as link, link, link.cursor() as cursor:
            users = read(cursor, schema)
            learned = train(users)
            if learned is None:
                print(f"train_model: {len(users)} users have a final label, too few to learn from.")
                return
            model, figures = learned
            write(cursor, schema, model, figures)
    except psycopg2.Error as error:
        raise SystemExit(f"train_model: {str(error).strip()}") from None
    print(json.dumps({**asdict(figures), "coefficients": coefficients(model)}, indent=2))


def read(cursor: Any, schema: str) -> list[User]:
    """The users whose label is final, in the order of their keys."""
    cursor.execute(
        SQL(
            "select user_id, {numbers}, traffic_source, device_kind, has_bought from {features}"
            " where is_label_final order by user_id"
        ).format(
            numbers=SQL(", ").join(map(Identifier, NUMBERS)),
            features=Identifier(schema, "fct_user_features"),
        )
    )
    users = []
    for user_id, *numbers, source, device, has_bought in cursor.fetchall():
        # Counts, few of which are high: their logarithms are nearer to each other.
        values = [math.log1p(number) for number in numbers]
        values += [float(source == each) for each in SOURCES] + [float(device == each) for each in DEVICES]
        users.append(User(user_id, tuple(values), has_bought))
    return users


def train(users: Sequence[User]) -> tuple[Model, Figures] | None:
    """Learn from some users and measure on the others; None when there are too few to do so."""
    known, unseen = [user for user in users if not user.is_test], [user for user in users if user.is_test]
    buyers = sum(user.has_bought for user in known)
    if len(users) < FEWEST or not unseen or buyers in (0, len(known)):
        return None
    model = fit(known)
    labels = [user.has_bought for user in unseen]
    chances = [model.probability(user.values) for user in unseen]
    return model, Figures(
        training_count=len(known),
        test_count=len(unseen),
        buyer_count=sum(user.has_bought for user in users),
        log_loss=round(log_loss(labels, chances), 6),
        baseline_log_loss=round(log_loss(labels, [buyers / len(known)] * len(labels)), 6),
        auc=auc(labels, chances),
    )


def fit(users: Sequence[User]) -> Model:
    """Gradient descent on the log loss, with a penalty on large weights."""
    columns = list(zip(*(user.values for user in users), strict=True))
    means = tuple(sum(column) / len(users) for column in columns)
    scales = tuple(
        math.sqrt(sum((value - mean) ** 2 for value in column) / len(users)) or 1.0
        for column, mean in zip(columns, means, strict=True)
    )
    rows = [
        [(value - mean) / scale for value, mean, scale in zip(user.values, means, scales, strict=True)]
        for user in users
    ]
    intercept, weights = 0.0, [0.0] * len(means)
    for _ in range(STEPS):
        errors = [
            _sigmoid(intercept + sum(map(float.__mul__, weights, row))) - user.has_bought
            for row, user in zip(rows, users, strict=True)
        ]
        intercept -= RATE * sum(errors) / len(users)
        for number, weight in enumerate(weights):
            slope = sum(error * row[number] for error, row in zip(errors, rows, strict=True)) / len(users)
            weights[number] -= RATE * (slope + PENALTY * weight)
    return Model(intercept, tuple(weights), means, scales)


def log_loss(labels: Sequence[bool], chances: Sequence[float]) -> float:
    """The mean negative logarithm of the chance that was given to what has come true."""
    return -sum(
        math.log(max(chance if label else 1 - chance, 1e-12))
        for label, chance in zip(labels, chances, strict=True)
    ) / len(labels)


def auc(labels: Sequence[bool], chances: Sequence[float]) -> float | None:
    """How often a buyer has a higher chance than somebody who is none; None without both."""
    pairs = list(zip(labels, chances, strict=True))
    buyers = [chance for label, chance in pairs if label]
    others = [chance for label, chance in pairs if not label]
    if not buyers or not others:
        return None
    won = sum((buyer > other) + (buyer == other) / 2 for buyer in buyers for other in others)
    return round(won / (len(buyers) * len(others)), 6)


def coefficients(model: Model) -> dict[str, dict[str, float]]:
    """What the model consists of, by the names of the features."""
    features = zip(NAMES, model.weights, model.means, model.scales, strict=True)
    found = {
        name: {"weight": round(weight, 6), "mean": round(mean, 6), "scale": round(scale, 6)}
        for name, weight, mean, scale in features
    }
    return {"intercept": {"weight": round(model.intercept, 6)}, **found}


def write(cursor: Any, schema: str, model: Model, figures: Figures) -> None:
    """Add the training to the table of trainings, which is created where it is missing."""
    runs = Identifier(schema, "model_runs")
    cursor.execute(SQL(_RUNS).format(runs=runs))
    row = {**asdict(figures), "coefficients": json.dumps(coefficients(model))}
    cursor.execute(
        SQL("insert into {} ({}) values ({})").format(
            runs, SQL(", ").join(map(Identifier, row)), SQL(", ").join([SQL("%s")] * len(row))
        ),
        list(row.values()),
    )


def _sigmoid(value: float) -> float:
    # Beyond these, the exponential would overflow and nothing would change.
    return 1 / (1 + math.exp(-max(-35.0, min(35.0, value))))


if __name__ == "__main__":
    main()
