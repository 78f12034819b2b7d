"""Champion against challenger on the same requests, with conclusions that survive peeking."""
