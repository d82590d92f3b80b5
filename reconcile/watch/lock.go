package watch

import (
	"context"
	"sync"
)

// sharedLock is the fleet's lock, held while any scope is being changed, so
// that an apply from elsewhere finds it free in between.
type sharedLock struct {
	take func(context.Context) (locked context.Context, release func() error, err error)

	mutex   sync.Mutex // protects what follows, and is held while the lock is taken or given back
	holders int
	locked  context.Context
	release func() error
	failed  error // what giving it back came to
}

// hold takes the lock, unless it is held already. The context ends when the
// lock is lost; done must be called.
func (l *sharedLock) hold(ctx context.Context) (locked context.Context, done func(), err error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.holders == 0 {
		if l.locked, l.release, err = l.take(ctx); err != nil {
			return nil, nil, err
		}
	}
	l.holders++
	return l.locked, l.done, nil
}

func (l *sharedLock) done() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.holders--; l.holders == 0 {
		l.failed = l.release()
	}
}

// close returns what giving back the lock for the last time came to.
func (l *sharedLock) close() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.failed
}
