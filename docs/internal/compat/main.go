// Command compat writes docs/compatibility.md: everything that the reference
// offers to a client, and whether it is here.
//
// What the reference offers stands in reference.txt (kind, name, program),
// which TestReferenceList compares with the reference's own programs and,
// with -rewrite, writes. What is here is asked from the code: instances of
// package control answer the same questions as the reference did, package
// drivers lists its drivers, the options are those that cmd/qmpblock declares.
package main

//go:generate go run .

import (
	"fmt"
	"os"
)

// Paths from this folder, where go generate and the tests run.
const (
	pagePath    = "../../compatibility.md"
	programPath = "../../../cmd/qmpblock"
)

func main() {
	page, err := makePage()
	if err == nil {
		err = os.WriteFile(pagePath, page, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}
