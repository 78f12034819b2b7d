"""What server and monitor share: the shapes of events, bundles and the embedded log."""
