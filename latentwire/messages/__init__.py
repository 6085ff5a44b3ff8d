"""Messages: number formats of soft tokens, and what rides beside them as text. Knows no task and no bridge."""
