"""How data comes into the sources: files, Airbyte."""
