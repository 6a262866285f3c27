package control

import (
	"context"

	"github.com/qmpblock/qmpblock/schema"
)

// registerJobs registers the lists of what works in the background. There are
// no commands yet that start a job or an export, so the lists are those of
// empty registries.
func (i *Instance) registerJobs(t *schema.Table) {
	t.QueryJobs(func(context.Context) ([]*schema.JobInfo, error) { return nil, nil })
	t.QueryBlockJobs(func(context.Context) ([]*schema.BlockJobInfo, error) { return nil, nil })
	t.QueryBlockExports(func(context.Context) ([]*schema.BlockExportInfo, error) { return nil, nil })
}
