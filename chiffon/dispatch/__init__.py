"""The use cases, a verb a file: what the API, the agent and the command line ask for."""
