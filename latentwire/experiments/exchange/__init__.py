"""Results and registry between clones, through git."""
