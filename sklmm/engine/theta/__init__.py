"""The parameters: their layout, bounds and natural units."""
