"""What is published of a run at its end: dbt's docs and artifacts, in a folder or a bucket."""
