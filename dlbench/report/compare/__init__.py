"""Two or more sides, case by case: what may be compared, the statistics, and what may be said."""
