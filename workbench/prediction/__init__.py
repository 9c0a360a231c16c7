"""What recipes will cost, before they are run."""
