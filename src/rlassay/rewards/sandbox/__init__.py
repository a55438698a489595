"""Run rewards where their failures cannot harm the job.

`guard` wraps a reward for the job: it turns failures into None, counts them, and stops the run when they are too many.
`isolation` sends a group to the job's one `worker` process, which scores it. After a crash or a timeout there, one
completion has no value, and the next question starts a new worker. `child_process` has both ends of the pipe between a
job and such a process; the servers of `judge` and `reward_model` use it too.
"""
