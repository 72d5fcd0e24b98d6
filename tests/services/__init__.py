"""Stand-ins on loopback for services that are not on this machine."""
