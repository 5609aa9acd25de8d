"""Where a pipeline runs: here, on a dask scheduler, or on SLURM; the same file, keys and stores everywhere.

    execute -> Executor.items -> Spreader: units out, rows in -> Pool (dask) -> stages.unit on workers -> store
            -> Executor.whole -> here, or as a SLURM job with torchrun (slurm)

config     settings of the `cluster:` block and of profiles; none of them is in any key
profiles   the user's file of profiles, and what a command, a block and a profile say together
executors  the seam: what `execute` asks for, the executor that works here, and how the others are chosen
grouping   how many videos make a unit of work, from what is known of their cost
spread     a node's videos as units: what is under way, what died, what is tried again, what is given up
dask_worker  what every worker has: the unit as a task, and leaving in peace
dask_pool  processes that do units: a LocalCluster, a scheduler that is there, or dask-jobqueue's workers on SLURM
scripts    the texts of job scripts
jobs       one SLURM job, by sbatch, squeue, scancel
training   a run as a SLURM job: submitted or found again, watched, requeued, cancelled
live       how far a node is, for `status` in another process
logs       what workers said, found by the name of a video
"""
