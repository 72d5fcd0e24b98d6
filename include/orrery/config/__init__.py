"""The YAML that users write: models, loading, and errors with places."""
