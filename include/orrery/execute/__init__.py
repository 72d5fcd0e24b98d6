"""What tasks do when they run."""
