package control

import (
	"context"

	"github.com/qmpblock/qmpblock/schema"
)

// registerJobs registers the lists of jobs. There are no commands yet that
// start one, so the lists are those of an empty registry.
func (i *Instance) registerJobs(t *schema.Table) {
	t.QueryJobs(func(context.Context) ([]*schema.JobInfo, error) { return nil, nil })
	t.QueryBlockJobs(func(context.Context) ([]*schema.BlockJobInfo, error) { return nil, nil })
}
