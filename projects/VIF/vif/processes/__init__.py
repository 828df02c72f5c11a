"""Many processes: which one this is, how they start, and that none waits for one that is gone."""
