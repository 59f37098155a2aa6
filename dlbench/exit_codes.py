"""Exit status of the commands and the workers of dlbench."""

OK = 0
#: Done, but some cases failed or a threshold was exceeded.
SOME_FAILED = 1
#: Nothing ran: an option, a file or a request cannot be used.
BAD_INPUT = 2
#: The results do not decide: `compare`, `accept`, `fleet`, `history`.
NOT_DECIDED = 2
#: A worker ended without its result; the reason is in its folder.
NOT_DONE = 3
#: Ctrl-C or a signal of the batch system.
INTERRUPTED = 130
