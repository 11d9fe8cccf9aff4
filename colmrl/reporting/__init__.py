"""report.html: what a run did and found, in one file that needs nothing else."""
