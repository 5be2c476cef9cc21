"""Exercises: what is asked, what is right, and which mistakes are known by name.

`spec` says what a question is, `call` calls a student's function, `verdict` judges what
came back, and `check` is what a notebook imports. The other modules hold the questions,
one module for each notebook.
"""
