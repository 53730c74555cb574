"""What runs in the contenders' own processes: their applications and their clients. They read ``BENCH_*`` variables."""
