package control

import (
	"context"

	"github.com/qmpblock/qmpblock/qmp"
	"github.com/qmpblock/qmpblock/schema"
)

// registerMisc registers the commands around passed file descriptors, and the
// monitor for people.
func (i *Instance) registerMisc(t *schema.Table) {
	t.Getfd(i.getfd)
	t.Closefd(i.closefd)
	t.AddFd(i.addFD)
	t.RemoveFd(i.removeFD)
	t.QueryFdsets(i.queryFdsets)
	t.HumanMonitorCommand(i.humanMonitorCommand)

}

func (i *Instance) getfd(ctx context.Context, a *schema.GetfdArguments) error {
	s := qmp.SessionFrom(ctx)
	return i.namedFDs(s).Get(a.Fdname, s.TakeFD())
}

func (i *Instance) closefd(ctx context.Context, a *schema.ClosefdArguments) error {
	return i.namedFDs(qmp.SessionFrom(ctx)).CloseFD(a.Fdname)
}

func (i *Instance) addFD(ctx context.Context, a *schema.AddFdArguments) (*schema.AddfdInfo, error) {
	set, fd, err := i.fdsets.Add(a.FdsetId, qmp.SessionFrom(ctx).TakeFD(), a.Opaque)
	if err != nil {
		return nil, err
	}
	return &schema.AddfdInfo{FdsetId: set, Fd: fd}, nil
}

func (i *Instance) removeFD(_ context.Context, a *schema.RemoveFdArguments) error {
	return i.fdsets.Remove(a.FdsetId, a.Fd)
}

func (i *Instance) queryFdsets(context.Context) ([]*schema.FdsetInfo, error) {
	infos := []*schema.FdsetInfo{}
	for _, set := range i.fdsets.List() {
		info := &schema.FdsetInfo{FdsetId: set.ID}
		for _, fd := range set.FDs {
			info.Fds = append(info.Fds, &schema.FdsetFdInfo{Fd: fd.FD, Opaque: fd.Opaque})
		}
		infos = append(infos, info)
	}
	return infos, nil
}
