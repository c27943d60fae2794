"""`python -m convlab.doctor`: what is wrong with this installation, and the command that fixes it.

finding    what a check says: a name, a verdict, what was found, what fixes it
packages   Python, torch and its threads, torchvision, convlab's own libraries
building   what a build needs: host compiler, nvcc, ninja, memory
gpu        driver and GPUs, against what convlab was compiled for
selftest   every operator against torch; runs in a process of its own

Nothing here imports torch or the operators into this process: it works, and says why, where `import convlab` fails.
"""
