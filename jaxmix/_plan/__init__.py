"""Which row of which source every step takes, exact and known on the host."""
