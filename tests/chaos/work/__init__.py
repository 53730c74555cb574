"""Work for the machine's agents, which leaves a witness of every run."""
