"""Where the monitor's facts come from: the log's events and the bundles' baselines."""
