"""`execute: kubernetes`: dbt runs in pods; Airflow's workers start them, and need no way to the warehouse."""
