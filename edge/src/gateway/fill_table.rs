//! The table of running fills: at most one runs and one waits per key (P4, http.md 25). Pure.
//!
//! Who may not join the running fill, since it must not rely on what was fetched before it came,
//! collapses into the next one, which starts after its arrival.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use wire::mistake::{Mistake, makes};

/// What was true when a fetch started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The seq that its edge had applied (P4).
    pub filled_at: u64,
    /// The generation of its key (P8).
    pub tombstone: u64,
}

/// What a request has to do with a key's fills.
#[derive(Debug)]
pub enum Part<F> {
    /// Run this fill. Where there is one before it, wait for its end first.
    Lead(Arc<F>, Option<Arc<F>>),
    /// Wait for this one, which had started.
    Join(Arc<F>),
    /// Wait for this one, which had not: whatever it brings was fetched after this request came.
    Await(Arc<F>),
}

#[derive(Debug)]
struct Slot<F> {
    running: Arc<F>,
    /// What was true when the running fill started its fetch; nothing while it has not.
    begun: Option<Begun>,
    next: Option<Arc<F>>,
}

impl<F> Slot<F> {
    fn of(running: &Arc<F>) -> Self {
        Self { running: Arc::clone(running), begun: None, next: None }
    }
}

/// All running fills, by what they fill.
#[derive(Debug)]
pub struct FillTable<K, F>(HashMap<K, Slot<F>>);

impl<K, F> Default for FillTable<K, F> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash, F> FillTable<K, F> {
    /// Finds a request's part; `anew` makes the fill that it leads where it does. `may_join` decides whether it may rely
    /// on a fetch that has started; one whose key was made invalid since, so that its `tombstone` is another, is for
    /// nobody who comes: they don't wait for it.
    pub fn take_part(&mut self, key: &K, tombstone: u64, may_join: bool, anew: impl FnOnce() -> F) -> Part<F> {
        let anew = || Arc::new(anew());
        let Some(slot) = self.0.get_mut(key) else {
            let anew = anew();
            self.0.insert(key.clone(), Slot::of(&anew));
            return Part::Lead(anew, None);
        };
        let running = Arc::clone(&slot.running);
        match slot.begun {
            None => return Part::Await(running),
            Some(begun) if begun.tombstone != tombstone && !makes(Mistake::NoTombstone) => {
                let anew = anew();
                *slot = Slot::of(&anew);
                return Part::Lead(anew, None);
            }
            Some(_) if may_join => return Part::Join(running),
            Some(_) => {}
        }
        if let Some(next) = &slot.next {
            return Part::Await(Arc::clone(next));
        }
        let anew = anew();
        slot.next = Some(Arc::clone(&anew));
        Part::Lead(anew, Some(running))
    }

    /// Takes in a fill where none is running for its key, and returns it; a refresh in the background has no need to wait.
    pub fn lead_if_idle(&mut self, key: &K, anew: F) -> Option<Arc<F>> {
        if self.0.contains_key(key) {
            return None;
        }
        let running = Arc::new(anew);
        self.0.insert(key.clone(), Slot::of(&running));
        Some(running)
    }

    /// A fill starts its fetch.
    pub fn begin(&mut self, key: &K, fill: &Arc<F>, begun: Begun) {
        if let Some(slot) = self.0.get_mut(key)
            && Arc::ptr_eq(&slot.running, fill)
        {
            slot.begun = Some(begun);
        }
    }

    /// A fill has ended, well or not: the next one runs.
    pub fn end(&mut self, key: &K, fill: &Arc<F>) {
        if let Some(slot) = self.0.get_mut(key)
            && Arc::ptr_eq(&slot.running, fill)
        {
            match slot.next.take() {
                Some(next) => *slot = Slot::of(&next),
                None => {
                    self.0.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = FillTable<u8, ()>;

    fn begun(tombstone: u64) -> Begun {
        Begun { filled_at: 7, tombstone }
    }

    fn take(table: &mut Table, tombstone: u64, may_join: bool) -> Part<()> {
        table.take_part(&0, tombstone, may_join, || ())
    }

    fn lead(part: Part<()>) -> (Arc<()>, Option<Arc<()>>) {
        match part {
            Part::Lead(fill, before) => (fill, before),
            other => panic!("expected to lead: {other:?}"),
        }
    }

    fn join(part: Part<()>) -> Arc<()> {
        match part {
            Part::Join(fill) => fill,
            other => panic!("expected to join: {other:?}"),
        }
    }

    fn wait(part: Part<()>) -> Arc<()> {
        match part {
            Part::Await(fill) => fill,
            other => panic!("expected to wait: {other:?}"),
        }
    }

    #[test]
    fn p4_who_may_not_join_collapses_into_the_next_fetch() {
        let table = &mut Table::default();
        let (running, none) = lead(take(table, 0, true));
        assert!(none.is_none());
        assert!(Arc::ptr_eq(&wait(take(table, 0, false)), &running), "it has not started");
        table.begin(&0, &running, begun(0));
        assert!(Arc::ptr_eq(&join(take(table, 0, true)), &running));
        let (next, before) = lead(take(table, 0, false));
        assert!(Arc::ptr_eq(&before.unwrap(), &running));
        assert!(Arc::ptr_eq(&wait(take(table, 0, false)), &next), "at most one waits");
        table.end(&0, &running);
        assert!(Arc::ptr_eq(&wait(take(table, 0, true)), &next), "the next one has its turn now");
        table.end(&0, &next);
        lead(take(table, 0, true));
    }

    #[test]
    fn p8_nobody_waits_for_a_fetch_of_what_was_made_invalid() {
        let table = &mut Table::default();
        let (old, _) = lead(take(table, 0, true));
        table.begin(&0, &old, begun(0));
        let (anew, before) = lead(take(table, 1, true));
        assert!(before.is_none());
        table.end(&0, &old);
        assert!(Arc::ptr_eq(&wait(take(table, 1, true)), &anew), "the end of the old one changes nothing");
    }

    #[test]
    fn a_refresh_runs_where_nothing_else_does() {
        let table = &mut Table::default();
        let refresh = table.lead_if_idle(&0, ()).unwrap();
        assert!(table.lead_if_idle(&0, ()).is_none());
        table.end(&0, &refresh);
        assert!(table.lead_if_idle(&0, ()).is_some());
    }
}
