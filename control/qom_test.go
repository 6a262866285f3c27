package control

import (
	"context"
	"testing"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qjson"
)

// thread-pool-max of an object bounds the requests of its context; without an
// object the main context has the reference's default.
func TestThreadPoolMax(t *testing.T) {
	t.Parallel()
	i := New(Config{})
	i.Start()
	t.Cleanup(i.Close)
	run := func(command, args string) {
		t.Helper()
		v, err := qjson.Parse([]byte(args))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = i.Execute(context.Background(), command, v)
	}
	expect := func(ctx *aio.Context, want int) {
		t.Helper()
		if got := ctx.MaxBlocking(); got != want {
			t.Errorf("%d in the context %s, want %d", got, ctx.Name(), want)
		}
	}
	expect(i.graph.Main(), 64)
	run("object-add", `{"qom-type":"iothread","id":"t0"}`)
	run("object-add", `{"qom-type":"iothread","id":"t1","thread-pool-max":3}`)
	expect(i.iothreadContext("t0"), 64)
	expect(i.iothreadContext("t1"), 3)
	run("qom-set", `{"path":"/objects/t1","property":"thread-pool-max","value":9}`)
	run("qom-set", `{"path":"/objects/t0","property":"thread-pool-min","value":65}`) // refused
	expect(i.iothreadContext("t0"), 64)
	expect(i.iothreadContext("t1"), 9)
	run("object-add", `{"qom-type":"main-loop","id":"m","thread-pool-max":5}`)
	expect(i.graph.Main(), 5)
	run("qom-set", `{"path":"m","property":"thread-pool-max","value":2}`)
	expect(i.graph.Main(), 2)
	expect(i.iothreadContext("t1"), 9)
}
