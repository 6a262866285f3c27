package main

import (
	"errors"
	"fmt"
	"strings"
)

// longOption is one option as getopt_long(3) knows it.
type longOption struct {
	name  string
	short byte // 0 if there is none
	arg   bool
}

// parsedOption is an option as it stood on the command line; name is empty
// for a word that is no option.
type parsedOption struct {
	name, arg string
}

// getopt reads a command line as the reference does, with getopt_long(3):
// "--name arg" or "--name=arg", names shortened as long as they are unambiguous,
// short options joined with each other and with their argument. Errors carry
// the program's name as C's library prints it.
func getopt(program string, options []longOption, args []string) ([]parsedOption, error) {
	var parsed []parsedOption
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			for _, w := range args {
				parsed = append(parsed, parsedOption{arg: w})
			}
			return parsed, nil
		case strings.HasPrefix(word, "--"):
			p, rest, err := longArgument(program, options, word[2:], args)
			if err != nil {
				return nil, err
			}
			parsed, args = append(parsed, p), rest
		case len(word) > 1 && word[0] == '-':
			ps, rest, err := shortArguments(program, options, word[1:], args)
			if err != nil {
				return nil, err
			}
			parsed, args = append(parsed, ps...), rest
		default:
			parsed = append(parsed, parsedOption{arg: word})
		}
	}
	return parsed, nil
}

func longArgument(program string, options []longOption, word string, rest []string) (parsedOption, []string, error) {
	name, value, hasValue := strings.Cut(word, "=")
	o, err := matchLong(program, options, name, word)
	if err != nil {
		return parsedOption{}, nil, err
	}
	switch {
	case !o.arg && hasValue:
		return parsedOption{}, nil, fmt.Errorf("%s: option '--%s' doesn't allow an argument", program, o.name)
	case o.arg && !hasValue && len(rest) == 0:
		return parsedOption{}, nil, fmt.Errorf("%s: option '--%s' requires an argument", program, o.name)
	case o.arg && !hasValue:
		value, rest = rest[0], rest[1:]
	}
	return parsedOption{o.name, value}, rest, nil
}

// matchLong finds the option that a name, in full or shortened, stands for.
// word is what the user wrote, argument and all: errors quote it, as the
// library's do.
func matchLong(program string, options []longOption, name, word string) (longOption, error) {
	var matches []longOption
	for _, o := range options {
		if o.name == name {
			return o, nil
		}
		if strings.HasPrefix(o.name, name) {
			matches = append(matches, o)
		}
	}
	switch len(matches) {
	case 0:
		return longOption{}, fmt.Errorf("%s: unrecognized option '--%s'", program, word)
	case 1:
		return matches[0], nil
	}
	text := fmt.Sprintf("%s: option '--%s' is ambiguous; possibilities:", program, word)
	for _, o := range matches {
		text += " '--" + o.name + "'"
	}
	return longOption{}, errors.New(text)
}

func shortArguments(program string, options []longOption, letters string, rest []string) ([]parsedOption, []string, error) {
	var parsed []parsedOption
	for i := 0; i < len(letters); i++ {
		o, ok := matchShort(options, letters[i])
		if !ok {
			return nil, nil, fmt.Errorf("%s: invalid option -- '%c'", program, letters[i])
		}
		if !o.arg {
			parsed = append(parsed, parsedOption{name: o.name})
			continue
		}
		value := letters[i+1:]
		if value == "" {
			if len(rest) == 0 {
				return nil, nil, fmt.Errorf("%s: option requires an argument -- '%c'", program, letters[i])
			}
			value, rest = rest[0], rest[1:]
		}
		return append(parsed, parsedOption{o.name, value}), rest, nil
	}
	return parsed, rest, nil
}

func matchShort(options []longOption, letter byte) (longOption, bool) {
	for _, o := range options {
		if o.short == letter {
			return o, true
		}
	}
	return longOption{}, false
}
