"""`python -m convlab.bench`: convlab's kernels timed beside torch's, on the machine it runs on.

case       what is measured, and who does it in which way
cases      problems as cases: convolutions, rungs, pooling, activations, calls; networks, models: training steps
device     where: a CPU; gpu: an NVIDIA GPU, and a rehearsal without one
timer      paired, interleaved timing
measure    check, then time, then set beside the device's ceilings: a case becomes a row
record     a run as JSON
report     a run as tables
command    the command line
"""
