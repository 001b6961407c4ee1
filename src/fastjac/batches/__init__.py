"""Many samples at a time: chunks, threads, and what is summed over samples."""
