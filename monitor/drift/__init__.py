"""How far production rows have moved from the training data, from counts in the same bins."""
