"""Which experiments there are and how they stand: events, claims, their fold and its views. Standard library only."""
