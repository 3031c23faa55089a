"""Numbers of parties, by round and step."""
