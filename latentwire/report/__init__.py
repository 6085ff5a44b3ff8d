"""Tables and figures from result files; nothing here loads a model."""
