"""Exercises: stubs to fill in, and a checker that says which line of thought went wrong."""

from vitscratch.exercises.catalog import EXERCISES
from vitscratch.exercises.exercise import Exercise, Mistake, Outcome, Passed, Problem

__all__ = ["EXERCISES", "Exercise", "Mistake", "Outcome", "Passed", "Problem"]
