"""What a delivered frame costs and how old it is, peers beside us on one camera: `python -m tests.bench`."""
