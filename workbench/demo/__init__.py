"""The bundled model, its texts and tasks, and the recorded study."""
