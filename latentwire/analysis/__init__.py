"""What a trained bridge carries, measured beyond its scores on tasks."""
