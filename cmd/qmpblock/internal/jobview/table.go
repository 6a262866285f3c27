package jobview

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/vbauerster/mpb/v8/decor"
)

// Table prints jobs below each other.
func Table(out io.Writer, jobs []Job) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.TabIndent)
	fmt.Fprintln(t, "ID\tTYPE\tSTATUS\tDONE\tPROGRESS\tLIMIT\tNOTE")
	for _, j := range jobs {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d%%\t%s\t%s\t%s\n",
			j.ID, j.Type, j.Status, j.Percent(), progress(&j), dash(limit(&j)), dash(j.Note()))
	}
	return t.Flush()
}

// progress is how much of how much is done, in the job's unit.
func progress(j *Job) string { return amount(j, j.Done) + "/" + amount(j, j.Total) }

func amount(j *Job, n int64) string {
	if j.Block {
		return size(n)
	}
	return strconv.FormatInt(n, 10)
}

func size(n int64) string { return fmt.Sprintf("% .1f", decor.SizeB1024(n)) }

func limit(j *Job) string {
	if j.Speed == 0 {
		return ""
	}
	return size(j.Speed) + "/s"
}

// dash keeps the columns of a table apart where there is nothing to say.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
