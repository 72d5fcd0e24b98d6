"""The pages in Airflow that show what the pipelines have made, and how they are."""
