"""Exercise 13, an answer. `vitscratch.data.splits.stratified_split` is the library's."""

import random


def split(labels: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Labels -> (train, held_out): numbers of pictures."""
    generator = random.Random(seed)
    train, held_out = [], []
    for label in sorted(set(labels)):
        numbers = [number for number, other in enumerate(labels) if other == label]
        generator.shuffle(numbers)
        cut = round(fraction * len(numbers))
        held_out += numbers[:cut]
        train += numbers[cut:]
    return train, held_out
