package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

func enrollmentListCommand(p *program) *cobra.Command {
	var asJSON bool
	var q enroll.Query
	var state, since string
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List the devices that enrolled, or want to, or were refused",
		Long: `Lists devices by their last change, newest last, or with --name by name. A
device that changes while it is listed is listed once. With --limit, the last line says where the
list continues, for --after; there, a device that changed since then may be listed again.

--json includes everything known about each device except its evidence; see enrollment show.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) (err error) {
			if q.State, err = parseState(state); err != nil {
				return err
			}
			if since != "" {
				if q.Since, err = parseSince(since, time.Now()); err != nil {
					return err
				}
			}
			if limit < 0 {
				return exit.Usagef("--limit %d: want a number of devices", limit)
			}
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				return p.listEnrollments(s, q, limit, asJSON)
			})
		},
	}
	c.Flags().StringVar(&state, "state", "", "only those in this `STATE`: pending, approved, enrolled, refused, rejected or revoked")
	completeFlag(c, "state", "pending", "approved", "enrolled", "refused", "rejected", "revoked")
	c.Flags().BoolVar(&q.Left, "left-policy", false, "only enrolled devices that attested to a state that server.enrollment.pcr does not allow")
	c.Flags().StringVar(&since, "since", "", "only those that changed at this `TIME` or later: 36h or 7d ago, 2026-01-31, or as RFC 3339 has it")
	c.Flags().StringVar(&q.Name, "name", "", "only those whose name begins with `TEXT`")
	c.Flags().IntVar(&limit, "limit", 0, "`NUMBER` of devices at most (default all)")
	c.Flags().StringVar(&q.After, "after", "", "continue after this `PLACE`, with which the previous list ended")
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) listEnrollments(s admin.Enrollments, q enroll.Query, limit int, asJSON bool) error {
	l := &listing[enroll.Record]{w: p.stdout, asJSON: asJSON, head: "EK HASH\tNAME\tSTATE\tUPDATED\tWHY\tISSUER", row: enrollmentRow}
	q.Limit = pageSize
	next, err := enroll.Walk(q, limit, s.Page, l.add)
	if errors.Is(err, enroll.ErrQuery) {
		return exit.Usagef("--after %q: want what the list before ended with, and the same other flags", q.After)
	}
	if err == nil {
		err = l.end()
	}
	if err != nil || next == "" {
		return err
	}
	_, err = fmt.Fprintf(p.stderr, "there are more: --after %s\n", next)
	return err
}

func enrollmentRow(r enroll.Record) []any {
	issuer := r.Issuer
	if r.IssuerURL != "" {
		issuer += " (" + r.IssuerURL + ")"
	}
	return []any{r.ID.String()[:16], r.Name, r.State, day(r.Updated), reasons(r), issuer}
}

func parseState(text string) (enroll.State, error) {
	if s := enroll.State(text); text == "" || slices.Contains(enroll.States(), s) {
		return s, nil
	}
	return "", exit.Usagef("--state %q: want one of %s", text, exit.List(enroll.States()))
}

// reasons returns why a device may enroll, or why it waits.
func reasons(r enroll.Record) string {
	if r.Left() {
		r.Waits = "left the policy: " + r.Attested.Why
	}
	switch {
	case r.Waits == "":
		return r.Accepted
	case r.Accepted == "":
		return r.Waits
	}
	return r.Accepted + "; " + r.Waits
}

func enrollmentShowCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "show DEVICE",
		Short: "Show everything known about a device, with its evidence, as JSON",
		Args:  want("DEVICE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withEnrollments(false, func(s admin.Enrollments) error {
				r, err := find(s, args[0])
				if err != nil {
					return err
				}
				return printJSON(p.stdout, r)
			})
		},
	}
}
