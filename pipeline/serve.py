"""`python -m pipeline.serve`: the warm process of a run, from which its jobs are forked."""

from pipeline.job import quiet_environment
from pipeline.run import main
from pipeline.warm import serve

if __name__ == "__main__":
    quiet_environment()
    serve(main)
