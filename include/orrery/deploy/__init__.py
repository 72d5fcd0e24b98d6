"""Orrery in containers: what its image and its services need beside Airflow's own commands."""
