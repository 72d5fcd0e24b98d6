"""Small servers on loopback that stand in for services which a laptop does not have."""
