"""Finds where Orrery shows something else than `dbt build` did: drawn projects, choices and hands."""
