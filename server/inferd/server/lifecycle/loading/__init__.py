"""How one version is loaded: opened, checked, warmed up."""
