"""Losses and distributions mixed by the schedule that mixes data."""
