package conformance

import (
	"bytes"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

// The names of all tests that were chosen, by how they ended; those that skipped themselves say why.
var _ = ginkgo.ReportAfterSuite("summary", func(report ginkgo.Report) {
	// A run in several processes begins with a look at what there is, in which everything passes.
	if *summaryFile == "" || report.SuiteConfig.DryRun {
		return
	}
	ended := map[types.SpecState][]string{}
	for _, spec := range report.SpecReports {
		reason := firstLine(spec.Failure.Message)
		switch {
		case spec.LeafNodeType != types.NodeTypeIt:
			if spec.State.Is(types.SpecStateFailureStates) {
				ended[types.SpecStateFailed] = append(ended[types.SpecStateFailed], spec.LeafNodeType.String()+": "+reason)
			}
		case spec.State == types.SpecStateSkipped && reason == "": // not chosen
		case spec.State.Is(types.SpecStateFailureStates):
			ended[types.SpecStateFailed] = append(ended[types.SpecStateFailed], spec.FullText()+": "+reason)
		case spec.State == types.SpecStateSkipped:
			ended[spec.State] = append(ended[spec.State], spec.FullText()+": "+reason)
		default:
			ended[spec.State] = append(ended[spec.State], spec.FullText())
		}
	}
	var text bytes.Buffer
	for _, state := range []types.SpecState{types.SpecStatePassed, types.SpecStateSkipped, types.SpecStateFailed} {
		sort.Strings(ended[state])
		for _, line := range ended[state] {
			fmt.Fprintf(&text, "%s\t%s\n", state, line)
		}
	}
	fmt.Fprintf(&text, "%d passed, %d skipped themselves, %d failed\n", len(ended[types.SpecStatePassed]),
		len(ended[types.SpecStateSkipped]), len(ended[types.SpecStateFailed]))
	if err := os.WriteFile(*summaryFile, text.Bytes(), 0o644); err != nil {
		ginkgo.Fail("cannot keep the summary: " + err.Error())
	}
})

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
