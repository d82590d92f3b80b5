package watch

import "sync"

// said knows what was said of a scope last, so that a state that lasts is
// reported once.
type said struct {
	mutex sync.Mutex // protects texts
	texts map[string]map[string]bool
}

func newSaid() *said { return &said{texts: map[string]map[string]bool{}} }

// first notes that text is said of the scope; false where it was already.
func (s *said) first(scope, text string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.texts[scope] == nil {
		s.texts[scope] = map[string]bool{}
	}
	if s.texts[scope][text] {
		return false
	}
	s.texts[scope][text] = true
	return true
}

// forget is called when all is well with the scope.
func (s *said) forget(scope string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.texts, scope)
}

// reset forgets all.
func (s *said) reset() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	clear(s.texts)
}
