"""The chapters of a report, and the tables in them."""
