"""Will a task work through a bridge, and why not: checks of rows, models and bits."""
