"""Why an attempt ended badly, read out of an exception or a log, and what follows from it."""
