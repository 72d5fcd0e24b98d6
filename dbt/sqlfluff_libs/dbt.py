"""Stand-ins for dbt's own macros, so that sqlfluff renders models without a warehouse.

sqlfluff offers this module to the templates as `dbt`. What a macro here returns only has to look
like what dbt would write for PostgreSQL: nothing of it is ever run. See `.sqlfluff`.
"""


def cast(field: str, data_type: str) -> str:
    return f"cast({field} as {data_type})"


def concat(fields: list[str]) -> str:
    return " || ".join(fields)


def current_timestamp() -> str:
    return "now()"


def date_trunc(datepart: str, date: str) -> str:
    return f"date_trunc('{datepart}', {date})"


def dateadd(datepart: str, interval: int, from_date_or_timestamp: str) -> str:
    return f"{from_date_or_timestamp} + ((interval '1 {datepart}') * ({interval}))"


def datediff(first_date: str, second_date: str, datepart: str) -> str:
    return f"date_diff('{datepart}', {first_date}, {second_date})"


# dbt's macro has the name of a word of Python.
globals()["except"] = lambda: "except"


def hash(field: str) -> str:  # noqa: A001 (the name is dbt's)
    return f"md5({field})"


def safe_cast(field: str, type: str) -> str:  # noqa: A002 (the name is dbt's)
    return f"cast({field} as {type})"


def type_int() -> str:
    return "int"


def type_numeric() -> str:
    return "numeric(28, 6)"


def type_string() -> str:
    return "text"


def type_timestamp() -> str:
    return "timestamp"
