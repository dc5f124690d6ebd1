"""How what is served is brought to what is desired: events in, decisions, actions out."""
