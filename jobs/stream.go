package jobs

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// copyChunk is the most that a job that goes through a disk in order looks at,
// and copies, at once, in bytes.
const copyChunk = 512 << 10

// StreamParams describe a job that fills an image from the images behind it.
type StreamParams struct {
	Params
	Graph *block.Graph
	// Node is the image, or a filter over it.
	Node *block.Node
	// Base is the image that will be behind it, Bottom the last whose data is
	// copied. One of them is given; if none is, all is copied.
	Base, Bottom *block.Node
	// BackingFile is what the image says of Base; nil: Base's file name.
	BackingFile *string
	// MaskProtocol makes the image say raw where Base is a protocol.
	MaskProtocol bool
	Speed        int64
	Errors       ErrorPolicy
	// FilterName is the name of the filter over the image, "" for a generated
	// one.
	FilterName string
}

// stream copies what an image reads from those behind it into the image, by
// prefetching through a copy-on-read filter over it. In the end the images
// whose data was copied are taken out of the chain.
type stream struct {
	p   StreamParams
	job *BlockJob
	// image is the node that is filled. The chain is copied down to bottom;
	// what stands under aboveBase at the end will be the backing file.
	image, bottom, aboveBase *block.Node
	filter                   *block.Node
	backend                  *block.Backend
	writable                 writable // the image
}

// check refuses what cannot be streamed.
func (p *StreamParams) check() error {
	for n := p.Node; n != nil && n != p.Base; n = n.FilterOrCow() {
		if err := n.CheckBlocked(block.BlockOpStream); err != nil {
			return err
		}
		if n == p.Bottom {
			break
		}
	}
	// The reference says so even if it is told where to stop.
	if p.Base == nil && p.BackingFile != nil {
		return qerr.New("backing file specified, but streaming the entire chain")
	}
	return nil
}

// CreateStream makes a stream job.
func (s *Set) CreateStream(l *aio.Lock, p StreamParams) (*BlockJob, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	k := &stream{p: p, image: p.Node.SkipFilters()}
	switch {
	case p.Bottom != nil:
		k.bottom, k.aboveBase = p.Bottom, p.Bottom
	case p.Base != nil:
		k.aboveBase = p.Node.FindOverlay(p.Base)
		k.bottom = p.Node.FindOverlay(p.Base)
		for k.bottom.Driver().Kind == block.Filter {
			k.bottom = p.Node.FindOverlay(k.bottom)
		}
	default:
		k.bottom = p.Node.FindBase()
		k.aboveBase = k.bottom
	}
	if err := k.create(l, s); err != nil {
		k.Clean(l, nil)
		return nil, err
	}
	return k.job, nil
}

// create puts the filter over the image and makes the job. What it has done
// when it fails is undone by Clean.
func (k *stream) create(l *aio.Lock, s *Set) (err error) {
	if err := k.writable.make(l, k.p.Node); err != nil {
		return err
	}
	if k.filter, err = k.p.Graph.InsertFilter(l, k.filterOptions(), k.p.Node); err != nil {
		return err
	}
	if k.p.FilterName == "" {
		k.filter.MakeImplicit(l)
	}
	k.job, err = s.CreateBlock(l, k, BlockParams{
		Params: k.p.Params, Graph: k.p.Graph, Node: k.filter, Shared: block.PermAll, Speed: k.p.Speed, KeepNodes: true,
	})
	if err != nil {
		return err
	}
	if err = k.hold(l); err != nil {
		k.job.GiveUp(l)
	}
	return err
}

func (k *stream) filterOptions() *block.Options {
	o := block.NewOptions()
	o.Set("driver", block.StringOpt("copy-on-read"))
	if k.p.FilterName != "" {
		o.Set("node-name", block.StringOpt(k.p.FilterName))
	}
	o.Set("file", block.StringOpt(k.p.Node.Name()))
	o.Set("bottom", block.StringOpt(k.bottom.Name()))
	return o
}

// hold takes what the job works on: nobody may resize the image, or change the
// images behind.
func (k *stream) hold(l *aio.Lock) error {
	const reads = block.PermConsistentRead | block.PermWriteUnchanged
	k.backend = k.p.Graph.NewBackend("", block.PermConsistentRead, reads|block.PermWrite)
	k.backend.NoQueuing = true
	if err := k.backend.Insert(l, k.filter); err != nil {
		return err
	}
	k.p.Graph.DrainAll(l)
	if err := k.job.AddNode(l, "active node", k.p.Node, 0, reads|block.PermWrite); err != nil {
		return err
	}
	base := k.aboveBase.FilterOrCow()
	for n := k.p.Node.FilterOrCow(); n != nil && n != base; n = n.FilterOrCow() {
		if err := k.job.AddNode(l, "intermediate node", n, 0, reads); err != nil {
			return err
		}
	}
	return nil
}

func (k *stream) Type() Type { return Stream }

// Run goes through the image from its beginning to its end. The job goes on
// behind failed requests that are to be ignored, and fails in the end.
func (k *stream) Run(co *aio.Co, j *Job) error {
	if k.image == k.bottom {
		return nil // nothing is to be copied
	}
	length, err := k.backend.CoGetLength(co)
	if err != nil {
		return err
	}
	j.Progress.SetRemaining(length)
	var (
		failed         error
		offset, copied int64
	)
	for offset < length {
		k.job.Throttle(co, copied)
		if j.Cancelled() {
			break
		}
		var count int64
		count, copied, err = k.step(co, offset, length-offset)
		if err != nil {
			switch k.job.handle(co, Read, k.p.Errors, err) {
			case StopOnError:
				continue
			case ReportError:
				return err
			}
			if failed == nil {
				failed = err
			}
		}
		j.Progress.Add(count)
		offset += count
	}
	return failed
}

// step copies what is to be copied at offset. It returns how far that reached
// and how much of it was copied; what failed counts as done. Where there is
// nothing to copy it reaches far.
func (k *stream) step(co *aio.Co, offset, bytes int64) (count, copied int64, err error) {
	chunk := min(bytes, copyChunk)
	allocated, count, err := k.image.CoIsAllocated(co, offset, bytes)
	if err != nil {
		return chunk, 0, err
	}
	if allocated {
		return count, 0, nil
	}
	depth, count, err := k.image.FilterOrCow().CoIsAllocatedAbove(co, k.bottom, true, offset, count)
	switch {
	case err != nil:
		return chunk, 0, err
	case count == 0: // the images behind have ended
		if count, err = k.tail(co, offset, bytes); err != nil || count == 0 {
			return bytes, 0, err
		}
	case depth == 0:
		return count, 0, nil
	}
	count = min(count, chunk)
	return count, count, k.backend.CoPrefetch(co, offset, count)
}

// tail is how much of the area behind the end of the images behind lies before
// the end of base: zeroes so far, where base would show from now on. The
// reference lets it.
func (k *stream) tail(co *aio.Co, offset, bytes int64) (int64, error) {
	base := k.aboveBase.FilterOrCow()
	if base == nil {
		return 0, nil
	}
	length, err := base.CoGetLength(co)
	return max(0, min(length-offset, bytes)), err
}

// Prepare takes the images whose data was copied out of the chain.
func (k *stream) Prepare(l *aio.Lock, _ *Job) error {
	k.dropFilter(l)
	if k.image.Backing() == nil {
		return nil
	}
	base := k.aboveBase.FilterOrCow()
	k.image.DrainedBegin(l)
	defer k.image.DrainedEnd()
	k.p.Graph.DrainAll(l)
	err := k.p.Graph.Write(l, "stream", func(w *block.Write) error { return w.SetBacking(k.image, base) })
	if err != nil {
		return err
	}
	if base != nil {
		base = base.SkipFilters()
	}
	return changeBacking(l, k.image, base, k.p.BackingFile, k.p.MaskProtocol)
}

// changeBacking makes an image say what its backing file is: base, nil for
// none, under the given name or base's own.
func changeBacking(l *aio.Lock, image, base *block.Node, name *string, maskProtocol bool) error {
	var b block.ImageBacking
	if base != nil {
		b.Filename, b.Format = base.ShowFilename(), base.Driver().Name
		if name != nil {
			b.Filename = *name
		}
		if maskProtocol && base.Driver().Kind == block.Protocol {
			b.Format = "raw"
		}
	}
	return image.ChangeBackingFile(l, b)
}

// Clean takes the filter out of the chain. The job holds it, with nothing below,
// until it is dismissed (observed: own/jobs/drains-chain).
func (k *stream) Clean(l *aio.Lock, _ *Job) {
	k.dropFilter(l)
	if k.backend != nil {
		k.backend.Close(l)
		k.backend = nil
	}
	k.writable.restore(l)
}

func (k *stream) dropFilter(l *aio.Lock) {
	if k.filter == nil {
		return
	}
	// It takes nothing that its users do not take.
	_ = k.p.Graph.DropFilter(l, k.filter)
	k.p.Graph.Unref(l, k.filter)
	k.filter = nil
}
