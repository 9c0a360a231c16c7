"""Where runs execute: inline, or in the worker process of a study."""
