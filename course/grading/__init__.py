"""The grader: answers out of a notebook, called in a child process, judged outside it.

`extraction` reads the notebook as data, `box` and `worker` are the two ends of a pipe that
speaks `wire`, `runner` asks and judges, `report` writes, `command` is `course grade`.
"""
