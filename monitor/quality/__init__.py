"""Whether the data are sound: missing values, new categories, values out of range."""
