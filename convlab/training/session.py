"""What a training script does once it knows its options: train, compare, or make a table of the algorithms."""

import sys
import warnings

from .._pipe import quiet_end
from .errors import TrainingError
from .kept import KeptRun, Stopped
from .options import algorithms_asked_for
from .processes import World


def main(name, load, train, args):
    """Does what `args` asks for. Ends the program with one line where it cannot be done, or was stopped.

    name: of the network; load(args): the training and the test ImageSet; train(run): the loop, see __init__.py.
    """
    warnings.formatwarning = lambda message, *where: f"{message}\n"
    # With float16, GradScaler leaves out steps that overflow, often the first.
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
    with quiet_end(), World(args.device) as world:
        try:
            sets = [part.part(slice(args.images)) for part in world.first_one_then_the_others(lambda: load(args))]
            if world.leads:
                counts = f"{len(sets[0].labels)} training and {len(sets[1].labels)} test images"
                print(f"{counts}, {sets[0].source}", flush=True)
                if args.prefetch and world.device.type == "cpu":
                    print(
                        "--prefetch: on the CPU there is nothing to copy, batches come as they do without it",
                        flush=True,
                    )
            if args.compare:
                from .compare import compare

                compare(name, train, args, sets, world)
            elif args.simulate or args.algo == "all":
                from .ladder import ladder

                ladder(train, args, algorithms_asked_for(args), sets)
            else:
                KeptRun(name, args, sets, world).train(train)
        except Stopped as stop:
            if world.leads:
                print(stop)
            sys.exit(128 + stop.signal)
        except KeyboardInterrupt:  # where there is nothing to save yet, or a second time
            sys.exit(130)
        except TrainingError as error:
            sys.exit(f"{args.prog}: {error}" if world.leads else 1)
