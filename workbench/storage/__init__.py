"""What a study keeps: the journal of its runs, outcomes, compressed weights."""
