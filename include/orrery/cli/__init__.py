"""The commands of the launcher `./orrery`."""
