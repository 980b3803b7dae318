package proof

// TypeQuote is the type of a StandaloneQuote.
const TypeQuote = "quote"

// A StandaloneQuote is a quote outside an enrollment. Its qualifying data is the nonce,
// so that other tools can also check it.
type StandaloneQuote struct {
	Type    string `json:"type"`
	Version int    `json:"version"`
	AK      []byte `json:"ak"` // TPMT_PUBLIC
	Nonce   []byte `json:"nonce"`
	Quote   Quote  `json:"quote"`

	EventLog []byte `json:"event_log,omitempty"` // as PackLog makes it
}
