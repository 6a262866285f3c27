package jobs

import (
	"errors"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
)

// ErrorPolicy says what is done about failed requests, as in the QAPI type
// BlockdevOnError.
type ErrorPolicy uint8

// The policies. PolicyENOSPC and PolicyAuto stop where the medium is full and
// report all else.
const (
	PolicyReport ErrorPolicy = iota
	PolicyIgnore
	PolicyENOSPC
	PolicyStop
	PolicyAuto
)

// action is what is done about a failed request.
func (p ErrorPolicy) action(err error) ErrorAction {
	switch {
	case p == PolicyIgnore:
		return IgnoreError
	case p == PolicyStop, p != PolicyReport && errors.Is(err, syscall.ENOSPC):
		return StopOnError
	}
	return ReportError
}

// handle tells users of a failed request and does what the policy demands.
func (b *BlockJob) handle(co *aio.Co, op Operation, policy ErrorPolicy, err error) ErrorAction {
	status := IOFailed
	if errors.Is(err, syscall.ENOSPC) {
		status = IONoSpace
	}
	action := policy.action(err)
	b.Failed(co, op, action, status)
	return action
}
