"""What the command lines of studies of simulated sets have in common."""

import argparse


def asked(doc, known, n_sets):
    """(Names of `known` that the command line has, all by default, and how many sets it asks for).

    `doc` is what its help says, and `n_sets` how many there are by default.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {list(known)}")
    parser.add_argument("--sets", type=int, default=n_sets)
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"no such names: {unknown}")
    return args.names or list(known), args.sets
