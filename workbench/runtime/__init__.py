"""Where compressed models run: packed layers on their kernels, and what they cost there."""
