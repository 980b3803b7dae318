package exit

import (
	"regexp"
	"strings"
	"sync"
)

// calls are the words before an error of Go's standard library that name what it called:
// an HTTP request with its URL, the dialing of a connection, the asking of a name server.
// What comes after them says what failed.
const calls = `(?:Get|Head|Post|Put|Patch|Delete) "[^"]*": |dial (?:tcp|udp|unix)[46]?(?:: | )|lookup |connect: `

// asked is the name server that does not know a host.
var asked = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(` on [0-9a-f.:\[\]]+:53: `)
})

// opening is a file's name, and once more before what the operating system says about it.
var opening = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`([^\s:]+): (?:open|read|stat|lstat|mkdir) ([^\s:]+): `)
})

// plainly leaves out the words of Go's standard library that say how a program found out
// what the rest of an error says. What is in quotation marks, and what a peer said, stays.
func plainly(text string, peers ...string) string {
	kept := ""
	for _, said := range peers {
		kept += "[ (;]?" + regexp.QuoteMeta(said) + "|"
	}
	pattern := regexp.MustCompile(`(` + kept + `"(?:[^"\\]|\\.)*")|(^|[ (;])(?:` + calls + `)`)
	for {
		shorter := pattern.ReplaceAllString(text, "$1$2")
		if shorter == text {
			break
		}
		text = shorter
	}
	text = asked().ReplaceAllString(text, ": ")
	return opening().ReplaceAllStringFunc(text, once)
}

// once leaves out the second name of a file, if it is the first one.
func once(text string) string {
	names := opening().FindStringSubmatch(text)
	if names[1] == names[2] || strings.TrimPrefix(names[1], "file:") == names[2] {
		return names[1] + ": "
	}
	return text
}
