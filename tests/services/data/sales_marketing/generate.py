"""Write what the stand-in for Airbyte syncs: a CRM and the reports of advertising platforms.

    python tests/services/data/sales_marketing/generate.py

Everything is synthetic: a seeded generator invents it, so running the script again reproduces the
files byte for byte. Each CSV file is a stream, `_types.json` has the types of its columns. README.md,
beside this script, says what is wrong with the data, on purpose.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SEED = 20_250_701
FIRST_DAY, LAST_DAY = date(2025, 7, 1), date(2026, 3, 31)
NOW = datetime.combine(LAST_DAY, time(23, 59, 59))
ACCOUNTS, CONTACTS = 220, 560

TYPES = {
    "crm_accounts": {
        "account_id": "varchar",
        "name": "varchar",
        "industry": "varchar",
        "country": "varchar",
        "employees": "varchar",
        "is_deleted": "boolean",
        "created_at": "timestamp",
        "updated_at": "timestamp",
    },
    "crm_contacts": {
        "contact_id": "varchar",
        "account_id": "varchar",
        "email": "varchar",
        "job_title": "varchar",
        "is_deleted": "boolean",
        "created_at": "timestamp",
        "updated_at": "timestamp",
    },
    "crm_opportunities": {
        "opportunity_id": "varchar",
        "account_id": "varchar",
        "contact_id": "varchar",
        "stage": "varchar",
        "amount": "varchar",
        "close_date": "date",
        "is_deleted": "boolean",
        "created_at": "timestamp",
        "updated_at": "timestamp",
    },
    "crm_campaign_responses": {
        "response_id": "varchar",
        "contact_id": "varchar",
        "utm_campaign": "varchar",
        "utm_medium": "varchar",
        "responded_at": "timestamp",
    },
    "ads_campaigns": {
        "campaign_id": "varchar",
        "campaign_name": "varchar",
        "platform": "varchar",
        "status": "varchar",
        "start_date": "date",
        "end_date": "date",
        "daily_budget_micros": "bigint",
    },
    "ads_spend": {
        "campaign_id": "varchar",
        "spend_date": "date",
        "impressions": "bigint",
        "clicks": "bigint",
        "cost_micros": "bigint",
        "reported_at": "timestamp",
    },
}

COMPANIES = "Alder Birch Cedar Dune Elm Fjord Gable Harbor Iris Juniper Kestrel Lantern Maple North Oak"
TRADES = "Analytics Books Cycles Energy Foods Freight Games Health Labs Media Optics Paper Robotics Tools"
FIRST_NAMES = "ada ben clara david elin felix gina hugo ida jonas karin luis mia noah olga paul rosa tom"
LAST_NAMES = "bauer costa dubois evans fischer garcia hall jansen keller lopez moreau nowak olsen petit"
JOBS = ("Head of Marketing", "CTO", "Data Engineer", "Operations Manager", "Founder", "Buyer", "")
INDUSTRIES = ("software", "retail", "logistics", "healthcare", "energy", "media")
# As people write them, and what is to become of it: the first one.
COUNTRIES = (
    ("DE", "de", "Germany", "Deutschland"),
    ("FR", "fr", "France"),
    ("GB", "UK", "United Kingdom"),
    ("SE", "se", "Sweden"),
    ("ES", " ES", "Spain"),
)
EMPLOYEES = ("8", "25", "60", "140", "480", "1,200", "5,400", "n/a", "", "-")

# name, platform, first and last day, cost of a day in euro, how often it is answered
CAMPAIGNS = (
    ("search_brand", "google", date(2025, 7, 1), None, 34.0, 16),
    ("search_generic", "google", date(2025, 7, 1), None, 88.0, 13),
    ("search_competitors", "google", date(2025, 10, 1), None, 52.0, 6),
    ("video_autumn", "google", date(2025, 9, 1), date(2025, 11, 30), 61.0, 4),
    ("social_lookalike", "facebook", date(2025, 7, 15), date(2026, 1, 31), 47.0, 9),
    ("social_retargeting", "facebook", date(2025, 8, 1), None, 23.0, 12),
    ("social_spring_launch", "facebook", date(2026, 2, 1), None, 70.0, 10),
    ("professionals_webinar", "linkedin", date(2025, 9, 15), date(2025, 12, 15), 95.0, 8),
    ("professionals_whitepaper", "linkedin", date(2025, 11, 1), None, 83.0, 9),
    ("professionals_cto", "linkedin", date(2026, 1, 10), None, 110.0, 5),
)
# Without a campaign on a platform: they cost nothing there.
UNPAID = (("newsletter", "email", 9), ("", "organic", 12), ("partner_day", "event", 4), ("", "", 6))
SPELLINGS = (str, str, str, str.upper, str.title, lambda name: f" {name.replace('_', '-')}")
STAGES = {
    "lead": ("Lead", "lead"),
    "qualified": ("Qualified", "qualified ", "SQL"),
    "proposal": ("Proposal", "proposal"),
    "won": ("Closed Won", "closed won", "Closed - Won"),
    "lost": ("Closed Lost", "closed lost", "Closed - Lost"),
}

Row = dict[str, Any]


def pick(rng: random.Random, options: Iterable[Any], weights: Sequence[float]) -> Any:
    return rng.choices(tuple(options), weights=weights)[0]


def moment(rng: random.Random, start: datetime, end: datetime) -> datetime:
    return start + timedelta(seconds=int((end - start).total_seconds() * rng.random()))


def make_accounts(rng: random.Random) -> list[Row]:
    first = datetime.combine(FIRST_DAY, time(8))
    accounts: list[Row] = []
    for number, created_at in enumerate(sorted(moment(rng, first, NOW) for _ in range(ACCOUNTS)), 1):
        name = f"{rng.choice(COMPANIES.split())} {rng.choice(TRADES.split())}"
        # salespeople try out the CRM, and forget to tidy up
        is_test = rng.random() < 0.02
        accounts.append(
            {
                "account_id": f"A{number:04}",
                "name": f"TEST {name}" if is_test else pick(rng, (name, f"{name} "), (9, 1)),
                "industry": pick(rng, (str, str.upper, str.title), (6, 1, 2))(rng.choice(INDUSTRIES)),
                "country": rng.choice(pick(rng, COUNTRIES, (9, 6, 6, 4, 4))),
                "employees": rng.choice(EMPLOYEES),
                "is_deleted": rng.random() < 0.03,
                "created_at": created_at,
                "updated_at": moment(rng, created_at, NOW),
            }
        )
    return accounts


def make_contacts(rng: random.Random, accounts: list[Row]) -> list[Row]:
    contacts: list[Row] = []
    owners = accounts + rng.choices(accounts, k=CONTACTS - len(accounts))
    for number, account in enumerate(sorted(owners, key=lambda each: each["created_at"]), 1):
        created_at = moment(rng, account["created_at"], min(NOW, account["created_at"] + timedelta(days=60)))
        first, last = rng.choice(FIRST_NAMES.split()), rng.choice(LAST_NAMES.split())
        address = f"{first}.{last}.{number}@{account['account_id']}.example"
        contact = {
            "contact_id": f"C{number:05}",
            "account_id": account["account_id"],
            "email": pick(rng, (str.lower, str.title, lambda text: f" {text.lower()}"), (8, 1, 1))(address),
            "job_title": rng.choice(JOBS),
            "is_deleted": rng.random() < 0.02,
            "created_at": created_at,
            "updated_at": moment(rng, created_at, NOW),
        }
        contacts.append(contact)
        if rng.random() < 0.05:
            # A form was filled in again: a second contact with the same address.
            again = moment(rng, created_at, NOW)
            contacts.append(
                {
                    **contact,
                    "contact_id": f"C{number:05}D",
                    "email": address.upper(),
                    "is_deleted": False,
                    "created_at": again,
                    "updated_at": again,
                }
            )
    return contacts


def make_responses(rng: random.Random, contacts: list[Row]) -> list[Row]:
    responses: list[Row] = []
    for contact in contacts:
        latest = min(NOW, contact["created_at"] + timedelta(days=100))
        for _ in range(pick(rng, range(6), (22, 30, 22, 14, 8, 4))):
            # the first contact is often before the CRM knows of it
            responded_at = moment(rng, contact["created_at"] - timedelta(days=5), latest)
            name, medium = campaign_on(rng, responded_at.date())
            row = {
                "response_id": "",
                "contact_id": contact["contact_id"],
                "utm_campaign": rng.choice(SPELLINGS)(name),
                "utm_medium": medium,
                "responded_at": responded_at,
            }
            responses.append(row)
            if rng.random() < 0.04:
                # clicked twice on the button
                again = responded_at + timedelta(seconds=rng.randint(1, 40))
                responses.append({**row, "responded_at": again})
    responses.sort(key=lambda row: row["responded_at"])
    return [{**row, "response_id": f"R{number:05}"} for number, row in enumerate(responses, 1)]


def campaign_on(rng: random.Random, day: date) -> tuple[str, str]:
    """Name and medium of what a contact answers."""
    running = [
        (name, "paid", often)
        for name, _, start, end, _, often in CAMPAIGNS
        if start <= day and (end is None or day <= end + timedelta(days=10))
    ]
    choices = [*running, *UNPAID]
    name, medium, _ = pick(rng, choices, [often for *_, often in choices])
    return name, medium


def make_opportunities(rng: random.Random, contacts: list[Row]) -> list[Row]:
    opportunities: list[Row] = []
    for contact in contacts:
        if rng.random() > 0.42:
            continue
        created_at = moment(rng, contact["created_at"], contact["created_at"] + timedelta(days=45))
        if created_at > NOW:
            continue
        number = len(opportunities) + 1
        days_open = round(rng.lognormvariate(3.4, 0.6))
        closes = created_at + timedelta(days=days_open)
        stage = rng.choice(("lead", "qualified", "proposal"))
        if closes <= NOW:
            stage = pick(rng, ("won", "lost", stage), (34, 50, 16))
        amount = round(rng.lognormvariate(8.6, 0.8), 2)
        written = pick(rng, (f"{amount:.2f}", f"{amount:,.2f}", f"EUR {amount:.2f}"), (7, 2, 1))
        opportunities.append(
            {
                "opportunity_id": f"O{number:04}",
                "account_id": contact["account_id"],
                "contact_id": contact["contact_id"],
                "stage": rng.choice(STAGES[stage]),
                "amount": "" if stage == "lead" and rng.random() < 0.5 else written,
                "close_date": closes.date(),
                "is_deleted": rng.random() < 0.02,
                "created_at": created_at,
                "updated_at": min(closes, NOW) if stage in ("won", "lost") else moment(rng, created_at, NOW),
            }
        )
    return opportunities


def make_campaigns() -> list[Row]:
    return [
        {
            "campaign_id": f"{platform[0].upper()}-{number:03}",
            "campaign_name": name.replace("_", " ").title() if platform == "linkedin" else name,
            "platform": platform,
            "status": "ENABLED" if end is None else "PAUSED",
            "start_date": start,
            "end_date": end,
            "daily_budget_micros": round(cost * 1.2) * 1_000_000,
        }
        for number, (name, platform, start, end, cost, _) in enumerate(CAMPAIGNS, 1)
    ]


def make_spend(rng: random.Random) -> list[Row]:
    spend: list[Row] = []
    for campaign, (_, _, start, end, cost, _) in zip(make_campaigns(), CAMPAIGNS, strict=True):
        day = start
        while day <= (end or LAST_DAY):
            clicks = max(0, round(rng.gauss(cost / 1.9, cost / 9)))
            row = {
                "campaign_id": campaign["campaign_id"],
                "spend_date": day,
                "impressions": clicks * rng.randint(18, 60),
                "clicks": clicks,
                "cost_micros": clicks * rng.randint(1_500_000, 2_300_000),
                "reported_at": datetime.combine(day + timedelta(days=1), time(3, rng.randrange(60))),
            }
            spend.append(row)
            if rng.random() < 0.07:
                # Clicks that nobody made are taken back: the day is reported once more.
                invalid = rng.randint(1, 4)
                spend.append(
                    {
                        **row,
                        "clicks": max(0, clicks - invalid),
                        "cost_micros": max(0, row["cost_micros"] - invalid * 1_700_000),
                        "reported_at": row["reported_at"] + timedelta(days=rng.randint(1, 3)),
                    }
                )
            day += timedelta(days=1)
    # of a campaign that was deleted on the platform
    for day in (date(2025, 7, 2), date(2025, 7, 3)):
        reported_at = datetime.combine(day + timedelta(days=1), time(3, 30))
        spend.append(
            {
                "campaign_id": "G-000",
                "spend_date": day,
                "impressions": 900,
                "clicks": 12,
                "cost_micros": 21_400_000,
                "reported_at": reported_at,
            }
        )
    return sorted(spend, key=lambda row: (row["reported_at"], row["campaign_id"], row["spend_date"]))


def written(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def main() -> None:
    rng = random.Random(SEED)
    accounts = make_accounts(rng)
    contacts = make_contacts(rng, accounts)
    streams = {
        "crm_accounts": accounts,
        "crm_contacts": contacts,
        "crm_opportunities": make_opportunities(rng, contacts),
        "crm_campaign_responses": make_responses(rng, contacts),
        "ads_campaigns": make_campaigns(),
        "ads_spend": make_spend(rng),
    }
    for name, rows in streams.items():
        with (FOLDER / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(TYPES[name]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: written(value) for key, value in row.items()} for row in rows)
        print(f"{name}.csv: {len(rows)} rows")
    (FOLDER / "_types.json").write_text(json.dumps(TYPES, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
