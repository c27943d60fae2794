"""Lists convlab's commands."""

COMMANDS = {
    "check": "grades a CUDA kernel of one's own without a GPU: races, bounds, wrong results, memory traffic",
    "explain": "shows what a convolution's CUDA kernels will do on a GPU that is not here",
    "bench": "times convlab's kernels beside torch's, on this machine",
    "doctor": "examines this installation, and names the command that fixes what is wrong",
}

if __name__ == "__main__":
    for name, what in COMMANDS.items():
        print(f"python -m convlab.{name:9}{what}")
    print("\n--help behind one of these lists its options. In Python, convlab.summary(model, input) tells of a model.")
