"""What is read off a fitted model: predictions, tables, measures, intervals, separation."""
