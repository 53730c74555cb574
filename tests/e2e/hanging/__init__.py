"""Work, so to say, that hangs the agent itself: for the scenario that names this package."""
