"""The parts of exercise 8's check, in the order of reading; each imports from those before it alone.

`bank`, `running`, `block`, `parameters`, `trial`; then what explains wrong logits: `surplus`, `listening`, `chance`,
`embedding`, `stream`, `tiny`, `tail`, `whole`. Which of them has the word when, `checks/vision_transformer.py` says.
"""
