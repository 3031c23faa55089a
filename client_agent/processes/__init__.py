"""One process per job, forked from one that has everything loaded and no thread."""
