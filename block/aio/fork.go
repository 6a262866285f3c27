package aio

// Fork starts another coroutine in the same context, on the turn of the caller,
// who waits until the new one has ended or first waits for something. A caller
// without a turn of home takes one first. exit runs as that of [Context.Start].
func (co *Co) Fork(home *Context, op string, fn func(*Co), exit func(*Lock, *PanicError)) {
	co.TakeTurn(home)
	co.ctx.launch(home, op, fn, exit, (*Context).Later)
}
