"""Exercise 13: hold pictures out.

Write the function that decides which pictures the model never trains on. From the labels it makes two lists of
picture numbers: those to train on, and those that are held out, `fraction` of them.

    held out of class c:  fraction * n_c pictures, rounded up or down        (n_c: pictures of class c)
                          where that is a whole number, just as many

- Every number from 0 to n - 1 is in one of the lists, once. A picture in both would be a question with its answer.
- Every class is in both lists, with its share. (Folders are read class by class: the last 20 % are one class.)
- Which pictures are held out is drawn at random. The same seed draws the same ones again, whatever else drew random
  numbers before; another seed draws others. And nobody else's random numbers change: use a generator of your own.

labels: a list of n whole numbers. fraction: in (0, 1); every class has enough pictures for both lists.
Returned are two lists (or arrays, or tensors) of whole numbers, in any order.

Minutes:     15
Difficulty:  2 of 3
Tutorial:    tutorials/06_training.ipynb
Check:       vitscratch check 13_split.py
"""


def split(labels: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Labels -> (train, held_out): numbers of pictures."""
    raise NotImplementedError("write split: begin with the numbers of the pictures of each class")
