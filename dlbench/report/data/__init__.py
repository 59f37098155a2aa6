"""From the store to what a report shows: rows, statistics, metrics, names, bounds."""
