"""Where a pipeline runs: here, on a dask scheduler, or on SLURM; the same file, keys and stores everywhere.

    execute -> Executor.items -> Spreader: units out, rows in -> Pool (dask) -> stages.base.unit on workers -> store
            -> Executor.whole -> here, or as a SLURM job with torchrun (slurm)

executors      the seam: what `execute` asks for, the executor that works here, and how the others are chosen
parts          a node's videos as ranges of shards: what waits, which videos are long, how much makes a unit of work
unit_scheduler  those units: what is under way, what died, what is tried again, what is given up
dask_worker    what every worker has: the unit as a task, and leaving in peace
dask_pool      processes that do units: a LocalCluster, a scheduler that is there, or dask-jobqueue's workers on SLURM
slurm_workers  the jobs of those workers
scripts        the texts of job scripts
jobs           one SLURM job, by sbatch, squeue, scancel
training       a run as a SLURM job: submitted or found again, watched, requeued, cancelled
progress_file  how far a node is, for `status` in another process
"""
