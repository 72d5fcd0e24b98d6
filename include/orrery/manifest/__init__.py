"""The dbt manifest: building it, the slim copy that rendering reads, and whether it is current."""
