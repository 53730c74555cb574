"""What goes wrong in a year of production, each a function that does it and undoes it."""
