"""What touches the rows of the table: units, sums, products."""
