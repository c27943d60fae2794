"""`python -m convlab.bench`: convlab's kernels timed beside torch's, on the machine it runs on.

layers        the layers that are measured, as data, and the arithmetic they take
case          one row of the table: its tensors, its contestants, its float64 reference
convolutions  pooling  activations  steps  overhead      the cases, by kind
check         outputs against float64, before anything is timed
timer         paired, interleaved timing
ceilings      what this machine's arithmetic and memory reach
measure       check, then time, then set beside the ceilings: a case becomes a row
targets       what the rows are wanted to reach
gpu           the same for CUDA kernels, on an NVIDIA GPU
record        a run as JSON; report: as tables; readme: as the table of README.md
"""
