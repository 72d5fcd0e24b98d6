"""What the demonstration must leave in the warehouse, told from its seeds alone."""

from __future__ import annotations

import csv
from pathlib import Path

_SEEDS = ("ecb_reference_rates", "raw_bookings", "raw_customers", "raw_payments", "raw_properties")


def demonstration_rows(dbt: Path) -> dict[str, int]:
    """The number of rows of every table and view of booking_analytics, after any number of runs."""
    seed = {name: _rows(dbt / "seeds" / "booking_analytics" / f"{name}.csv") for name in _SEEDS}
    count = {name: len(rows) for name, rows in seed.items()}
    country = {row["id"]: row["country"] for row in seed["raw_properties"]}
    months = {(row["booked_at"][:7], country[row["property_id"]]) for row in seed["raw_bookings"]}
    bookings, payments = count["raw_bookings"], count["raw_payments"]
    return {
        **{f"dev_raw.{name}": rows for name, rows in count.items()},
        "dev_staging.stg_bookings_app__bookings": bookings,
        "dev_staging.stg_bookings_app__customers": count["raw_customers"],
        "dev_staging.stg_bookings_app__payments": payments,
        "dev_staging.stg_bookings_app__properties": count["raw_properties"],
        "dev_staging.stg_ecb__reference_rates": count["ecb_reference_rates"],
        "dev_snapshots.snap_bookings": bookings,
        "dev_core.dim_booking_history": bookings,
        "dev_core.dim_customers": count["raw_customers"],
        "dev_core.dim_properties": count["raw_properties"],
        "dev_core.fct_bookings": bookings,
        "dev_core.fct_monthly_revenue": len(months),
        "dev_core.fct_payments": payments,
        "dev_core.int_bookings__converted_to_eur": bookings,
        "dev_core.int_payments__converted_to_eur": payments,
        # One row more than there are rates: the euro itself.
        "dev_core.int_reference_rates__spanned": count["ecb_reference_rates"] + 1,
    }


def unpaid_completed_bookings(dbt: Path) -> int:
    """How many guests have left without paying; the demonstration warns of them."""
    paid: dict[str, int] = {}
    for row in _rows(dbt / "seeds" / "booking_analytics" / "raw_payments.csv"):
        if row["status"] == "succeeded":
            sign = -1 if row["kind"] == "refund" else 1
            paid[row["booking_id"]] = paid.get(row["booking_id"], 0) + sign * int(row["amount_minor"])
    bookings = _rows(dbt / "seeds" / "booking_analytics" / "raw_bookings.csv")
    return sum(row["status"] == "completed" and paid.get(row["id"], 0) <= 0 for row in bookings)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
