"""Code that both clients use: settings, messages, errors and decisions, without network access."""
