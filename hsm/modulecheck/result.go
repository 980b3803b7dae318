package modulecheck

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Verdict is what came of a check.
type Verdict string

// The verdicts.
const (
	NotAsked Verdict = "not asked" // the store does not do it with any module
	OK       Verdict = "ok"
	Missing  Verdict = "missing" // the module says that it does not have it
	Wrong    Verdict = "wrong"   // it does something else than the standard says
)

// badness orders verdicts; it is below 0 without one.
func (v Verdict) badness() int {
	return slices.Index([]Verdict{NotAsked, OK, Missing, Wrong}, v)
}

// A Result is one check and what came of it.
type Result struct {
	Name    string  `json:"name"` // parts are separated by slashes
	Verdict Verdict `json:"verdict"`
	Answer  string  `json:"answer,omitempty"` // of the module: C_WrapKey: CKR_MECHANISM_INVALID
	Detail  string  `json:"detail,omitempty"`
	Means   string  `json:"means,omitempty"`   // for a server, if the verdict is missing or wrong
	Refused bool    `json:"refused,omitempty"` // a server does not open the token for that
}

// Group is the first part of the name.
func (r Result) Group() string {
	group, _, _ := strings.Cut(r.Name, "/")
	return group
}

// About is what a module and a token say of themselves.
type About struct {
	Module       string   `json:"module"`       // path of the library
	Library      string   `json:"library"`      // its description and version
	Manufacturer string   `json:"manufacturer"` // of the library
	Cryptoki     string   `json:"cryptoki"`     // version of PKCS #11
	Token        string   `json:"token"`        // label
	Model        string   `json:"model"`
	Firmware     string   `json:"firmware"`
	Sessions     string   `json:"sessions"`   // how many the token allows
	Mechanisms   []string `json:"mechanisms"` // CKM_…, in order
}

// A Report is what came of all checks.
type Report struct {
	About   About    `json:"about"`
	Results []Result `json:"results"`
}

// Count is how many checks of a group, or of all for "", had a verdict.
func (r Report) Count(group string, v Verdict) (n int) {
	for _, one := range r.Results {
		if one.Verdict == v && (group == "" || one.Group() == group) {
			n++
		}
	}
	return n
}

// Groups are the groups in the order of their checks: the worst result of each.
func (r Report) Groups() []Result {
	var all []Result
	for _, one := range r.Results {
		i := slices.IndexFunc(all, func(g Result) bool { return g.Name == one.Group() })
		if i < 0 {
			all, i = append(all, Result{Name: one.Group(), Verdict: one.Verdict}), len(all)
		}
		if one.Verdict.badness() > all[i].Verdict.badness() {
			all[i].Verdict = one.Verdict
		}
	}
	return all
}

// Refused are the names of the results for which a server does not open the token.
func (r Report) Refused() []string {
	var names []string
	for _, one := range r.Results {
		if one.Refused {
			names = append(names, one.Name)
		}
	}
	return names
}

// OneSession are the names of the checks that were not made since the token permits one session.
func (r Report) OneSession() []string {
	var names []string
	for _, one := range r.Results {
		if one.Verdict == NotAsked && one.Detail == needsSessions {
			names = append(names, one.Name)
		}
	}
	return names
}

// needsSessions is the detail of those checks.
const needsSessions = "it needs two sessions, and the token permits one"

// RowHead is the head of the table that [Report.Row] is a row of.
const RowHead = "| module | checks | missing | wrong | other software | a server |\n|---|---|---|---|---|---|"

// Row is the report as a row of a table in Markdown.
func (r Report) Row() string {
	serves := "yes"
	if refused := r.Refused(); len(refused) > 0 {
		serves = "refused: " + strings.Join(refused, ", ")
	}
	cells := []string{
		r.About.Library + ", token " + cmp.Or(r.About.Model, "unknown"),
		fmt.Sprintf("%d ok", r.Count("", OK)), r.groupsOf(Missing), r.groupsOf(Wrong),
		r.opinion(), serves,
	}
	for i, c := range cells {
		cells[i] = strings.NewReplacer("|", "/", "\n", " ").Replace(c)
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

// opinion counts what went well of the second opinion.
func (r Report) opinion() string {
	well := r.Count(secondOpinion, OK)
	return fmt.Sprintf("%d of %d ok", well, well+r.Count(secondOpinion, Missing)+r.Count(secondOpinion, Wrong))
}

// groupsOf counts the results with a verdict by group, with the answers of the module.
func (r Report) groupsOf(v Verdict) string {
	var parts []string
	for _, g := range r.Groups() {
		n, answers := 0, []string{}
		for _, one := range r.Results {
			if one.Group() != g.Name || one.Verdict != v {
				continue
			}
			n++
			if _, code, found := strings.Cut(one.Answer, ": CKR"); found && !slices.Contains(answers, "CKR"+code) {
				answers = append(answers, "CKR"+code)
			}
		}
		if n > 0 {
			part := fmt.Sprintf("%d %s", n, g.Name)
			if len(answers) > 0 {
				part += " (" + strings.Join(answers, ", ") + ")"
			}
			parts = append(parts, part)
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "–")
}
