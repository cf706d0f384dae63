package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Nothing is a request or an answer that says no more.
type Nothing struct{}

// A Request is a line to a process.
type Request struct {
	Do   string
	With json.RawMessage
}

// An Answer is a line from a process.
type Answer struct {
	Is    json.RawMessage `json:",omitempty"`
	Error string          `json:",omitempty"`
}

// Obey reads requests and writes answers until there are no more requests.
func Obey(in io.Reader, out io.Writer, do func(Request) (any, error)) error {
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q Request
		if err := requests.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := answers.Encode(answerOf(do(q))); err != nil {
			return err
		}
	}
}

func answerOf(is any, err error) Answer {
	if err != nil {
		return Answer{Error: err.Error()}
	}
	raw, err := json.Marshal(is)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	return Answer{Is: raw}
}

// A Client asks a process at the other end.
type Client struct {
	requests *json.Encoder
	answers  *json.Decoder
}

// NewClient makes a client that writes requests to one end and reads answers
// from the other.
func NewClient(in io.Writer, out io.Reader) *Client {
	return &Client{json.NewEncoder(in), json.NewDecoder(out)}
}

// Ask sends a request and waits for its answer, which it stores in is.
func (c *Client) Ask(do string, with, is any) error {
	raw, err := json.Marshal(with)
	if err != nil {
		return err
	}
	if err := c.requests.Encode(Request{do, raw}); err != nil {
		return fmt.Errorf("%s: %w", do, err)
	}
	var a Answer
	err = c.answers.Decode(&a)
	switch {
	case errors.Is(err, io.EOF):
		err = errors.New("the process has ended")
	case err == nil && a.Error != "":
		err = errors.New(a.Error)
	case err == nil:
		err = json.Unmarshal(a.Is, is)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", do, err)
	}
	return nil
}
