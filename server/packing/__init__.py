"""From a fitted estimator to a bundle."""
