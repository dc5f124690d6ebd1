"""Settings: what there is (`schema`), in which units (`units`), where it is read from (`load`)."""
