"""Flags of other servers, translated to settings."""
