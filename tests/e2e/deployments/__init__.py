"""Two versions of one set of work, as a rolling deployment has them side by side."""
