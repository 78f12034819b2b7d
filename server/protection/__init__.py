"""Who may do what, and how often: tokens, scopes and rates."""
