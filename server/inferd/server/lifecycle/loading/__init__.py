"""How one version is loaded (opened, checked, warmed up, proven), and how it is closed."""
