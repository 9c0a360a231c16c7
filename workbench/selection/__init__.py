"""Table, front and choice; which runs pass a bar, surely; what they cost."""
