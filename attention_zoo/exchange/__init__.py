"""Trained models to and from other places: folders that anybody can open, and other frameworks' formats."""
