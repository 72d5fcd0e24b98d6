"""Write the files of the affiliates product that lie in the landing zone.

    python dbt/landing/affiliates/generate.py

Everything is synthetic: a seeded generator invents it, so running the script again reproduces the
files byte for byte. It builds upon the generator of the booking_analytics product. README.md, beside
this script, says what the files hold.
"""

from __future__ import annotations

import json
import random
import runpy
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(__file__).parent
shared = SimpleNamespace(
    **runpy.run_path(str(FOLDER.parents[1] / "seeds" / "booking_analytics" / "generate.py"))
)

SEED = 20_260_105
FIRST_DAY = date(2026, 1, 5)  # a Monday
DAYS = [FIRST_DAY + timedelta(days=n) for n in range(7)]
CLICKS_PER_DAY = 120

PARTNERS = (
    # name, country, network, category
    ("Alder Outdoor", "SE", "direct", "sports"),
    ("Bramble Books", "GB", "linkhub", "books"),
    ("Copper Kettle", "GB", "direct", "kitchen"),
    ("Dune Travel", "ES", "linkhub", "travel"),
    ("Elm Street Shoes", "DE", "adbridge", "fashion"),
    ("Fjord Knitwear", "SE", "direct", "fashion"),
    ("Gable Home", "DE", "adbridge", "furniture"),
    ("Hazel Garden", "FR", "linkhub", "garden"),
    ("Inkwell Paper", "FR", "adbridge", "stationery"),
    ("Juniper Tea", "GB", "direct", "groceries"),
    ("Kestrel Cycles", "DE", "direct", "sports"),
    ("Lantern Lights", "ES", "linkhub", "furniture"),
)
PARTNER_WEIGHTS = (9, 6, 5, 8, 14, 7, 10, 6, 4, 5, 9, 6)
# Partners whose dashboards are scraped; the others have none.
SCRAPED = ("P01", "P02", "P04", "P05", "P06", "P07", "P08", "P10", "P11")

# partner, commission model, share in percent, fixed amount in euro, first day
DEALS = (
    ("P01", "share", "8.0", "", date(2025, 1, 1)),
    ("P02", "share", "5.0", "", date(2025, 1, 1)),
    ("P02", "share", "6.0", "", date(2025, 9, 1)),
    ("P03", "fixed", "", "4.50", date(2025, 2, 1)),
    ("P04", "fixed", "", "12.00", date(2025, 3, 1)),
    ("P05", "share", "10.0", "", date(2025, 1, 1)),
    ("P05", "share", "9.0", "", date(2025, 7, 1)),
    ("P06", "share", "7.5", "", date(2025, 1, 15)),
    ("P07", "share", "4.0", "", date(2025, 4, 1)),
    ("P08", "fixed", "", "3.20", date(2025, 1, 1)),
    ("P09", "share", "6.5", "", date(2025, 5, 1)),
    ("P10", "share", "12.0", "", date(2025, 10, 1)),
    ("P11", "share", "5.5", "", date(2025, 6, 1)),
    ("P01", "share", "9.0", "", date(2026, 1, 1)),
    ("P04", "fixed", "", "14.00", date(2026, 1, 8)),
    ("P05", "share", "11.0", "", date(2026, 1, 8)),
    ("P07", "fixed", "", "9.90", date(2026, 1, 10)),
    # Signed after the first orders had come in: those earn nothing.
    ("P12", "share", "8.0", "", date(2026, 1, 9)),
)

# campaign: (name, partner, share of the partner's clicks, cost of a visit in euro)
CAMPAIGNS = {
    "K01": ("Winter boots", "P05", 0.35, 0.11),
    "K02": ("Warm feet", "P05", 0.2, 0.16),
    "K03": ("Sofa sale", "P07", 0.4, 0.09),
    "K04": ("Last minute", "P04", 0.45, 0.14),
    "K05": ("Wool week", "P06", 0.3, 0.1),
    "K06": ("Trail season", "P01", 0.35, 0.12),
    "K07": ("City bikes", "P11", 0.3, 0.13),
    "K08": ("Bright evenings", "P12", 0.5, 0.08),
}

DEVICES = {"desktop": 38, "mobile": 52, "tablet": 10}
STATUSES = {"approved": 70, "pending": 22, "rejected": 8}
# What an order is worth, in euro.
ORDERS = {
    "books": 28,
    "fashion": 85,
    "furniture": 240,
    "garden": 60,
    "groceries": 35,
    "kitchen": 55,
    "sports": 130,
    "stationery": 24,
    "travel": 420,
}

Row = dict[str, Any]


def make_partners() -> list[Row]:
    return [
        {
            "partner_id": f"P{number:02}",
            "name": name,
            "country": country,
            "network": network,
            "category": category,
        }
        for number, (name, country, network, category) in enumerate(PARTNERS, start=1)
    ]


def make_deals() -> list[Row]:
    return [
        {
            "deal_id": f"D{number:03}",
            "partner_id": partner,
            "commission_model": model,
            "share_percent": share,
            "fixed_amount": fixed,
            "valid_from": valid_from,
        }
        for number, (partner, model, share, fixed, valid_from) in enumerate(DEALS, start=1)
    ]


def make_clicks(rng: random.Random, partners: list[Row]) -> list[Row]:
    moments = sorted(
        shared.moment_on(rng, day)
        for day in DAYS
        # more people have time to read on a weekend
        for _ in range(round(CLICKS_PER_DAY * (1.2 if day.weekday() >= 5 else 1)))
    )
    clicks: list[Row] = []
    for clicked_at in moments:
        partner = shared.pick(rng, partners, PARTNER_WEIGHTS)
        clicks.append(
            {
                "click_id": f"C{len(clicks) + 1:05}",
                "partner_id": partner["partner_id"],
                "campaign_id": campaign_of(rng, partner["partner_id"]),
                "device": shared.pick(rng, DEVICES, list(DEVICES.values())),
                "clicked_at": clicked_at,
            }
        )
    return clicks


def campaign_of(rng: random.Random, partner_id: str) -> str:
    """The campaign that brought the reader to the site, or nothing: most find it by themselves."""
    drawn = rng.random()
    for campaign_id, (_, partner, share, _) in CAMPAIGNS.items():
        if partner == partner_id:
            if drawn < share:
                return campaign_id
            drawn -= share
    return ""


def make_conversions(rng: random.Random, partners: list[Row], clicks: list[Row]) -> list[Row]:
    category = {partner["partner_id"]: partner["category"] for partner in partners}
    conversions: list[Row] = []
    for click in clicks:
        if rng.random() > 0.14:
            continue
        converted_at = click["clicked_at"] + timedelta(minutes=round(rng.expovariate(1 / 90)) + 2)
        if converted_at.date() > DAYS[-1]:
            continue
        conversions.append(
            {
                "conversion_id": f"O{len(conversions) + 1:04}",
                # a shop that lost its cookie reports an order without its click
                "click_id": "" if rng.random() < 0.06 else click["click_id"],
                "partner_id": click["partner_id"],
                "order_amount": f"{ORDERS[category[click['partner_id']]] * rng.uniform(0.4, 1.9):.2f}",
                "status": shared.pick(rng, STATUSES, list(STATUSES.values())),
                "converted_at": converted_at,
            }
        )
    return conversions


def report_days(rng: random.Random, conversions: list[Row]) -> dict[date, list[Row]]:
    """Conversions by the day of the report that holds them, which for some is the day after."""
    days: dict[date, list[Row]] = {day: [] for day in DAYS}
    for conversion in conversions:
        day = conversion["converted_at"].date()
        if rng.random() < 0.1 and day < DAYS[-1]:
            day += timedelta(days=1)
        days[day].append(conversion)
    return days


def commission_of(conversion: Row) -> float:
    """What a conversion earns by the deal of its partner that is valid on its day."""
    valid = [
        deal
        for deal in DEALS
        if deal[0] == conversion["partner_id"] and deal[4] <= conversion["converted_at"].date()
    ]
    if not valid:
        return 0.0
    _, model, share, fixed, _ = max(valid, key=lambda deal: deal[4])
    return float(fixed) if model == "fixed" else float(conversion["order_amount"]) * float(share) / 100


def make_scraped(rng: random.Random, clicks: list[Row], conversions: list[Row]) -> dict[date, list[Row]]:
    """What the dashboards show, by the day of the visit: the day before, and the one before that again."""
    click_counts = Counter((click["partner_id"], click["clicked_at"].date()) for click in clicks)
    earned: dict[tuple[str, date], list[float]] = {}
    for conversion in conversions:
        if conversion["status"] == "rejected":
            continue
        key = (conversion["partner_id"], conversion["converted_at"].date())
        earned.setdefault(key, []).append(commission_of(conversion))

    visits: dict[date, list[Row]] = {}
    for visit in (day + timedelta(days=1) for day in DAYS):
        visits[visit] = []
        for partner_id in SCRAPED:
            scraped_at = datetime.combine(visit, time(5, rng.randrange(60), rng.randrange(60)))
            for age in (2, 1):
                day = visit - timedelta(days=age)
                if day not in DAYS:
                    continue
                commissions = earned.get((partner_id, day), [])
                # on the first morning some orders are still on their way; a few never arrive
                shown = [value for value in commissions if rng.random() > (0.15 if age == 1 else 0.03)]
                seen = sum(rng.random() > 0.02 for _ in range(click_counts[partner_id, day]))
                row = {
                    "partner_id": partner_id,
                    "report_date": day.isoformat(),
                    "clicks": seen,
                    "conversions": len(shown),
                    "commission": round(sum(shown), 2),
                    "scraped_at": scraped_at.isoformat(sep=" "),
                }
                # a dashboard was renewed, and its scraper tells so
                if partner_id == "P05" and visit >= date(2026, 1, 9):
                    row["page_version"] = 2
                visits[visit].append(row)
    return visits


def make_voluum(rng: random.Random, clicks: list[Row]) -> dict[date, list[Row]]:
    """What the campaigns cost; numbers are written as in German, with a comma."""
    counts = Counter((click["campaign_id"], click["clicked_at"].date()) for click in clicks)
    days: dict[date, list[Row]] = {day: [] for day in DAYS}
    for day, rows in days.items():
        for campaign_id, (name, _, _, visit_cost) in CAMPAIGNS.items():
            visits = round((counts[campaign_id, day] + rng.randint(3, 9)) * rng.uniform(2.5, 4))
            cost = visits * visit_cost * rng.uniform(0.85, 1.15)
            rows.append(
                {
                    "campaign_id": campaign_id,
                    "campaign_name": name,
                    "report_date": day,
                    "visits": visits,
                    "cost": f"{cost:.2f}".replace(".", ","),
                }
            )
    return days


def write_jsonl(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{path.name}: {len(rows)} rows")


def file_in(table: str, name: str) -> Path:
    folder = FOLDER / table
    folder.mkdir(exist_ok=True)
    return folder / name


def by(rows: list[Row], key: Callable[[Row], date]) -> dict[date, list[Row]]:
    days: dict[date, list[Row]] = {}
    for row in rows:
        days.setdefault(key(row), []).append(row)
    return days


def main() -> None:
    rng = random.Random(SEED)
    partners = make_partners()
    deals = make_deals()
    clicks = make_clicks(rng, partners)
    conversions = make_conversions(rng, partners, clicks)

    shared.write(file_in("partners", "partners.csv"), partners)
    for year in (2025, 2026):
        signed = [deal for deal in deals if deal["valid_from"].year == year]
        shared.write(file_in("deals", f"deals_{year}.csv"), signed)
    for day, rows in by(clicks, lambda click: click["clicked_at"].date()).items():
        shared.write(file_in("clicks", f"clicks_{day}.csv"), rows)
    for day, rows in report_days(rng, conversions).items():
        shared.write(file_in("conversions", f"conversions_{day}.csv"), rows)
    for day, rows in make_scraped(rng, clicks, conversions).items():
        write_jsonl(file_in("scrapers", f"scrapers_{day}.jsonl"), rows)
    for day, rows in make_voluum(rng, clicks).items():
        shared.write(file_in("voluum", f"voluum_{day}.csv"), rows, delimiter=";")


if __name__ == "__main__":
    main()
