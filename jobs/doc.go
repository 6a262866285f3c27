// Package jobs runs background jobs: work that goes on behind the reply to the
// command that began it, and that users watch, pause, cancel and complete.
//
// # Jobs and kinds
//
// A [Job] is the life of one piece of work; what is done is up to its [Kind]:
// copying a disk, making an image. A kind is a small interface, [Kind.Run], and
// as many of the abilities beside it as it needs: taking part in the end
// ([Preparer], [Committer], [Aborter], [Cleaner]), knowing of pauses ([Pauser]),
// being told to complete ([Completer]) or to stop ([Canceller]).
//
// # States
//
//	undefined → created → running ⇄ paused
//	                         ↓
//	                       ready ⇄ standby
//	                         ↓
//	            waiting → pending → concluded → null
//
// A job is created, and started. While it works it may be paused. One that
// follows a disk which changes becomes ready, and works on until its user
// completes it. A job that is done waits for the others of its [Transaction],
// is pending until it is finalized, by itself or by its user, and concluded
// until it is dismissed. Whatever fails or is cancelled goes through aborting
// to concluded, from every state. Which command ([Verb]) is allowed in which
// state is a table in status.go.
//
// # Whose turn it is
//
// The state of jobs belongs to the main context: whoever changes it holds that
// context's lock, or is a job's coroutine on a turn that the lock's holder lent
// (see [aio.Context.Start]). So a job takes turns with commands and with other
// jobs, as all of them do in the reference's main loop, and the order of events
// and replies follows from the program alone: what a job does up to its first
// wait happens while the command that woke it runs, and what it does when the
// medium has answered happens between commands. Work on the medium itself needs
// no turn. The coroutine is at home in the main context also when its nodes are
// not; so these may move while the job runs.
//
// # Pauses
//
// Reasons to pause are counted: the user is one, each drained section of a node
// that the job uses is another. The coroutine pauses at the next
// [Job.PausePoint], [Job.Sleep] or [Job.Yield], and goes on when the last reason
// is gone. Cancelling ends a user's pause.
//
// # Transactions
//
// Jobs of one transaction end together: each is waiting until the last one is
// done, and if one fails all others are cancelled. A job that was given none
// has one of its own.
//
// # Block jobs
//
// A [BlockJob] is a job over nodes of the graph: it holds them with permissions,
// keeps operations away from them, has a speed and an I/O status, and events
// of its own besides those of all jobs.
package jobs
