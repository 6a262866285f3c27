package jobs

// Status is where a job stands, as in the QAPI type JobStatus.
type Status uint8

// The states.
const (
	Undefined Status = iota
	Created
	Running
	Paused
	Ready
	Standby
	Waiting
	Pending
	Aborting
	Concluded
	Null
	statuses
)

var statusNames = [statuses]string{
	"undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting", "concluded", "null",
}

func (s Status) String() string { return statusNames[s] }

// Verb is what users can do with a job, as in the QAPI type JobVerb.
type Verb uint8

// The verbs.
const (
	VerbCancel Verb = iota
	VerbPause
	VerbResume
	VerbSetSpeed
	VerbComplete
	VerbFinalize
	VerbDismiss
	VerbChange
	verbs
)

var verbNames = [verbs]string{"cancel", "pause", "resume", "set-speed", "complete", "finalize", "dismiss", "change"}

func (v Verb) String() string { return verbNames[v] }

// set is a set of states.
type set uint16

func states(all ...Status) set {
	var s set
	for _, one := range all {
		s |= 1 << one
	}
	return s
}

func (s set) has(one Status) bool { return s&(1<<one) != 0 }

// active are the states of a job that is not done.
var active = states(Created, Running, Paused, Ready, Standby)

// allowed are the states in which a verb is (observed: own/jobs/verbs,
// own/jobs/verbs-waiting; nobody can meet a job in the states undefined,
// aborting and null).
var allowed = [verbs]set{
	VerbCancel:   active | states(Waiting, Pending),
	VerbPause:    active,
	VerbResume:   active,
	VerbSetSpeed: active,
	VerbComplete: states(Ready, Standby),
	VerbFinalize: states(Pending),
	VerbDismiss:  states(Concluded),
	VerbChange:   active,
}

// next are the states that may follow one.
var next = [statuses]set{
	Undefined: states(Created),
	Created:   states(Running, Aborting, Null),
	Running:   states(Paused, Ready, Waiting, Aborting),
	Paused:    states(Running),
	Ready:     states(Standby, Waiting, Aborting),
	Standby:   states(Ready),
	Waiting:   states(Pending, Aborting),
	Pending:   states(Aborting, Concluded),
	Aborting:  states(Aborting, Concluded),
	Concluded: states(Null),
}
