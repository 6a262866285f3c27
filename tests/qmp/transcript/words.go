package transcript

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// splitWords cuts a line into words as a shell does: blanks separate, single
// and double quotes keep together, nothing is expanded.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, in := rune(0), false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteRune(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("no closing %c: %s", quote, line)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// rawBytes reads `"…" * N "…"`: strings with Go's escapes, each repeated as
// often as the number behind it says.
func rawBytes(text string) ([]byte, error) {
	var out []byte
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return nil, fmt.Errorf("no string at %q", abbreviate(text))
		}
		piece, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, err
		}
		count := 1
		text = strings.TrimSpace(text[len(quoted):])
		if after, ok := strings.CutPrefix(text, "*"); ok {
			number, rest, _ := strings.Cut(strings.TrimSpace(after), " ")
			if count, err = strconv.Atoi(number); err != nil {
				return nil, err
			}
			text = rest
		}
		out = append(out, bytes.Repeat([]byte(piece), count)...)
	}
	return out, nil
}
