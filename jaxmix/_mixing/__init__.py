"""What happens to rows inside a step: which source each row takes, and the rows moved."""
