package enroll

import (
	"errors"
	"log/slog"
	"strings"
)

// A Decision is what an authority decided about a device that proved its EK.
type Decision struct {
	ID    ID
	Name  string
	State State  // of the record after the decision
	Why   string // why it is in this state, or why it is not enrolled
	// Renewed says that a key of the device vouched for the new one.
	Renewed bool
	// Attests says that the message was an attestation by an enrolled device.
	Attests bool
	// Unlogged says that it is the first one without the event log that was asked for.
	Unlogged bool
	// Changes says in words what has changed about the TPM itself, which decides nothing.
	Changes []string

	Manufacturer string // of the EK certificate, as "id:53544D20"
	Model        string
	Issuer       string // of the EK certificate
	IssuerURL    string // of that issuer's certificate
}

// decision is the decision that led to err, or to an enrollment if err is nil.
func (n *application) decision(err error) Decision {
	r, ek := &n.record, &n.verdict.claim.ek
	d := Decision{
		ID: r.ID, Name: r.Name, State: r.State, Why: r.Accepted, Renewed: n.proof.Renewal != nil,
		Manufacturer: ek.Manufacturer, Model: ek.Model,
	}
	d.Issuer, d.IssuerURL = ek.issuer()
	switch {
	case n.verdict.waits != "":
		d.Why = n.verdict.waits
	case err != nil:
		d.Why = reason(err)
	}
	return d
}

// id returns the ID as text, empty for the zero value.
func (d *Decision) id() string {
	if d.ID == (ID{}) {
		return ""
	}
	return d.ID.String()
}

// LogValue returns the parts that are not empty.
func (d Decision) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("ek", d.id())}
	for _, part := range []struct{ name, value string }{
		{"name", d.Name}, {"state", string(d.State)}, {"why", d.Why}, {"manufacturer", d.Manufacturer},
		{"model", d.Model}, {"issuer", d.Issuer}, {"issuer_url", d.IssuerURL}, {"changes", strings.Join(d.Changes, "; ")},
	} {
		if part.value != "" {
			attrs = append(attrs, slog.String(part.name, part.value))
		}
	}
	if d.Renewed {
		attrs = append(attrs, slog.Bool("renewed", true))
	}
	return slog.GroupValue(attrs...)
}

// reason is the text of an error without its kind and its package.
func reason(err error) string {
	text := strings.TrimPrefix(err.Error(), "enroll: ")
	if errors.Is(err, ErrEKCertificate) {
		text = strings.TrimPrefix(text, ErrEKCertificate.Error()+": ")
	}
	return text
}
