"""What a plan will do, before the run: tables, warnings and pictures."""
