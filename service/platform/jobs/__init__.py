"""Work that outlives a request: enqueued with the unit that wants it, and then finished, or visibly dead.

A feature declares jobs by `@job` and names them in its Feature. Start reading at declare.py; what may happen to a row
is in store.py, who claims it in claims.py and who runs it in worker.py. docs/jobs.md is for those who write jobs.
"""

from service.platform.jobs.declare import ArgumentsWrong, Job, JobContext, JobsTwice, job, refuse_twins
from service.platform.jobs.enqueue import enqueue, enqueue_many
from service.platform.jobs.opening import Jobs, open_jobs
from service.platform.jobs.options import Priority

__all__ = [
    "ArgumentsWrong",
    "Job",
    "JobContext",
    "Jobs",
    "JobsTwice",
    "Priority",
    "enqueue",
    "enqueue_many",
    "job",
    "open_jobs",
    "refuse_twins",
]
