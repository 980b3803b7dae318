package usermsg

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/msl-hsm/msl-hsm/msl"
	"golang.org/x/text/language"
)

// A Catalog is a [msl.UserMessages] of fixed texts, added with Add. The zero Catalog is
// empty. It must not change once it is in use.
type Catalog struct{ languages []texts }

// texts are those of one language, by subject.
type texts struct {
	name string
	tag  language.Tag
	by   map[subject]string
}

// A subject is what a text is about: an internalcode or a response code.
type subject struct {
	internal int64
	response msl.ResponseCode
}

// Add adds a text. tag is its language, a BCP 47 tag like de or pt-BR. about says when
// to send it, and is one of
//
//   - the number or the name of an MSL error, like 5007 or EMAILPASSWORD_INCORRECT,
//   - an internalcode of an application, which is 110000 or more,
//   - a response code, like USERDATA_REAUTH, for all errors without their own text.
//
// The first language added is for peers that want none of the others. Any other tag or
// about, an empty text, and a second text for the same error in one language are errors.
func (c *Catalog) Add(tag, about, text string) error {
	parsed, err := language.Parse(tag)
	if err != nil || parsed == language.Und {
		return fmt.Errorf("%q is not a language: want a BCP 47 tag like en or pt-BR", tag)
	}
	s, err := parseSubject(about)
	if err != nil {
		return err
	}
	if text == "" {
		return fmt.Errorf("the text for %s is empty", about)
	}
	l := c.language(tag, parsed)
	if _, ok := l.by[s]; ok {
		return fmt.Errorf("there are two texts for %s in %s", about, l.name)
	}
	l.by[s] = text
	return nil
}

// language returns the texts of a language, adding it if necessary.
func (c *Catalog) language(name string, tag language.Tag) *texts {
	at := slices.IndexFunc(c.languages, func(l texts) bool { return l.tag == tag })
	if at < 0 {
		at = len(c.languages)
		c.languages = append(c.languages, texts{name, tag, map[subject]string{}})
	}
	return &c.languages[at]
}

// Languages returns the tags of the languages, in the order in which they were added.
func (c *Catalog) Languages() (tags []string) {
	for _, l := range c.languages {
		tags = append(tags, l.name)
	}
	return tags
}

// parseSubject reads what a text is about.
func parseSubject(about string) (subject, error) {
	unknown := fmt.Errorf("unknown error %q: want the number or the name of an MSL error, a response code like USERDATA_REAUTH, or an internalcode of an application, which is 110000 or more", about)
	if n, err := strconv.ParseInt(about, 10, 32); err == nil {
		return numbered(n, unknown)
	}
	for r := msl.Fail; r <= msl.SSOTokenRejected; r++ {
		if r.String() == about {
			return subject{response: r}, nil
		}
	}
	for _, code := range msl.Codes() {
		if code.Name() == about {
			return subject{internal: int64(code.Internal())}, nil
		}
	}
	return subject{}, unknown
}

const (
	firstInternal = 100000 // internalcode of error 0
	firstFree     = 110000 // after those of MSL
)

// numbered is the subject of an MSL error, or of an internalcode.
func numbered(n int64, unknown error) (subject, error) {
	switch {
	case n >= firstFree:
		return subject{internal: n}, nil
	case n < firstInternal:
		n += firstInternal
	}
	if msl.Code(n-firstInternal).Name() == "" {
		return subject{}, unknown
	}
	return subject{internal: n}, nil
}

// subjects are the subjects of a text for an error, best first.
func subjects(err error) []subject {
	var own *msl.AppError
	var code msl.Code
	switch {
	case errors.As(err, &own):
		response := own.Response
		if response < msl.Fail || response > msl.SSOTokenRejected {
			response = msl.Fail
		}
		if own.InternalCode <= 0 || own.InternalCode > math.MaxInt32 {
			return []subject{{response: response}}
		}
		return []subject{{internal: own.InternalCode}, {response: response}}
	case errors.As(err, &code):
		return []subject{{internal: int64(code.Internal())}, {response: code.Response()}}
	}
	return nil
}

// UserMessage returns the text for an error, in the best matching language that has one,
// or "".
func (c *Catalog) UserMessage(err error, languages []string) string {
	about := subjects(err)
	var tags []language.Tag
	var found []string
	for _, l := range c.languages {
		if at := slices.IndexFunc(about, func(s subject) bool { return l.by[s] != "" }); at >= 0 {
			tags, found = append(tags, l.tag), append(found, l.by[about[at]])
		}
	}
	switch len(tags) {
	case 0:
		return ""
	case 1:
		return found[0]
	}
	_, best, confidence := language.NewMatcher(tags).Match(wanted(languages)...)
	if confidence == language.No { // the next best would be a guess about people
		return found[0]
	}
	return found[best]
}

// Limits on how many of a peer's languages are read. RFC 5646, section 4.4.1, expects
// tags of up to 35 bytes.
const (
	maxLanguages = 16
	maxTag       = 100
)

// wanted are the valid languages of a peer.
func wanted(languages []string) (tags []language.Tag) {
	for _, name := range languages[:min(len(languages), maxLanguages)] {
		if len(name) > maxTag {
			continue
		}
		tag, err := language.Parse(name)
		var unknown language.ValueError // a subtag that is not registered
		if err != nil && !errors.As(err, &unknown) || tag == language.Und {
			continue
		}
		tags = append(tags, tag)
	}
	return tags
}
