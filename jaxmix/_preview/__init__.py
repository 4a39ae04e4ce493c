"""What a plan will do, before it does it: tables, warnings and pictures."""
