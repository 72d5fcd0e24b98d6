"""Shows broken pipeline files as an Airflow import error, without taking any dag down with them."""

from orrery.render import raise_problems

raise_problems(__file__)
