// Package aio provides event-loop contexts and coroutines: the two worlds in
// which block code runs, and the one wrapper that serves both.
//
// # Contexts
//
// A [Context] is a home for work on nodes: the main context runs commands and
// changes the graph, each iothread object adds one more. Whoever runs in a
// context outside of a coroutine holds its lock, and [*Lock] is the proof.
//
// # Coroutines
//
// I/O runs in coroutines. A coroutine is a goroutine that belongs to a context
// (which waits for it when it closes) and holds the guard of that context, in
// this program the block graph's read lock. [*Co] is the proof; there is no
// way to make one but to run in a coroutine. Code that blocks needs no
// callback: the Go runtime parks the goroutine. System calls that block take
// threads, though: they are put between [Co.BeginBlocking] and EndBlocking, so
// that a context has a bound of them.
//
// # The mixed wrapper
//
// An operation that only a coroutine may run has one entrance for everybody,
// built with [Mixed]. Its first argument is a [Caller]:
//
//   - a *Co: the operation runs directly;
//   - a *Lock: a coroutine is spawned in the operation's home context and the
//     caller polls until it is done ([WaitWhile]), its lock released meanwhile
//     so that the coroutine and the rest of the world can make progress;
//   - [Outside]: the same by [WaitWhileUnlocked], for callers that hold no lock.
//
// Forgetting to release the lock here is the classical deadlock of such code;
// the types leave no way to forget it.
//
// # Turns
//
// Some coroutines have to take turns with everybody else in a context, so that
// what they do has a place among what others do: jobs, whose events come before
// or behind the reply to a command. [Context.Start] runs a coroutine on the turn
// of a lock's holder, who lends it the lock and waits. The turn ends when the
// coroutine ends, sleeps ([Sleeper]), yields, or goes to the medium
// ([Co.BeginBlocking]); whoever wakes it lends it another one. What follows from
// the end of such a coroutine is done before the lock is given back. One that only
// wants others to have their turn puts itself off ([Co.Reschedule]). A coroutine
// that came back from the medium asks for a turn ([Co.TakeTurn]) when it needs
// one, and gets it when somebody polls, or between the steps of the context's
// owner ([Context.RunBetween]).
//
// # Who may open a driver
//
// Opening a driver asks for the image's length and so goes through the mixed
// wrapper. Its caller therefore must hold a lock that polling can release, or
// be a coroutine. [Holder] is the type of just these two callers.
package aio
