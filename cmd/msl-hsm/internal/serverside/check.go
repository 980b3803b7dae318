package serverside

// A Verdict is the result of a check.
type Verdict string

// The verdicts. A server with a failure is not ready.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failure Verdict = "failure"
)

// A Check is one thing that a server needs.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"` // what was found, and what to do next
}
