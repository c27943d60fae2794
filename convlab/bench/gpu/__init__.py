"""`python -m convlab.bench gpu`: convlab's CUDA kernels timed beside cuDNN, torch.compile and CUDA graphs.

device        the GPU, or in a dry run the host and the simulator in its place
precision     float32, TF32 and bfloat16, set and named
timing        paired, interleaved timing by events; graphs of calls; data cold or warm
ceilings      what the GPU's arithmetic and memory reach: a copy, a loop of multiply-adds (ffma.cu), cuBLAS
convolutions  pooling  steps      the cases
measure       check, then time: a case becomes a row, with its floors and the names of the peers' kernels
run           the command; report: its tables; readme: those of README.md
"""
