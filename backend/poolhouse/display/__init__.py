"""The views for people, on a terminal or in lines."""
