"""Work that only the scenarios have: `CHIFFON_WORKERS` names this package beside `workers`."""
