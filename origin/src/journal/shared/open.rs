//! Opens the shared journal: founds it where there is none, agrees on the process that keeps it, reads and checks all.

use engine::Trouble;
use wire::State;

use super::super::{OpenError, next_life, random, random_epoch};
use super::load::{self, LoadError};
use super::said::{Said, Word};
use super::shelf::Shelf;

/// How often it is begun anew, since other origins change the journal meanwhile.
const ATTEMPTS: usize = 20;

/// The journal as it was opened.
#[derive(Debug)]
pub(in crate::journal) struct Opened {
    pub(super) state: State,
    pub(super) run: String,
    pub(super) known: Known,
}

/// What the writer must know beside the state.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) turn: String,
    /// Where the stored snapshot ends.
    pub(super) snapshot: u64,
    /// Whether this origin is the first to see this process.
    pub(super) is_first: bool,
}

/// Opens the journal; with `new_epoch` another life of it begins.
pub(in crate::journal) async fn open(shelf: &Shelf, new_epoch: bool) -> Result<Opened, OpenError> {
    let name = shelf.redis().to_string();
    let shared = |why: String| OpenError::Shared { redis: name.clone(), why };
    shelf.learn_to_wait().await.map_err(|trouble| shared(trouble.to_string()))?;
    let mut opening = Opening { shelf, new_epoch, is_first: false };
    for _ in 0..ATTEMPTS {
        match opening.attempt().await {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(LoadError::Trouble(trouble)) => return Err(shared(trouble.to_string())),
            Err(LoadError::Damaged { seq, why }) => return Err(OpenError::SharedDamaged { redis: name.clone(), seq, why }),
        }
    }
    Err(shared("other origins change it all the time".to_owned()))
}

struct Opening<'a> {
    shelf: &'a Shelf,
    new_epoch: bool,
    is_first: bool,
}

impl Opening<'_> {
    /// Goes one step, or to the end; nothing where it must be begun anew.
    async fn attempt(&mut self) -> Result<Option<Opened>, LoadError> {
        let said = self.shelf.load().await?;
        if said.word == Word::Empty {
            self.found(&said).await?;
            return Ok(None);
        }
        if said.run != said.actual {
            // Nothing is known here that could have been lost; who knows more finds out by itself.
            let adopted = self.shelf.adopt(&said.run, &said.actual).await?;
            self.is_first |= adopted.word == Word::Done;
            return Ok(None);
        }
        let run = said.actual;
        let Some((state, said)) = load::whole(self.shelf, &run).await? else { return Ok(None) };
        if self.new_epoch {
            self.new_epoch = !self.begin(&run, &state).await?;
            return Ok(None);
        }
        self.must_be_replicated(&run, &state).await?;
        let known = Known { turn: said.turn, snapshot: said.snapshot, is_first: self.is_first };
        Ok(Some(Opened { state, run, known }))
    }

    /// Of several origins that do this at once one wins.
    async fn found(&self, said: &Said) -> Result<(), LoadError> {
        let state = State::new(random_epoch(), random());
        let position = state.position;
        let bytes = encode(state).await?;
        self.shelf.begin(&said.actual, None, &position, &bytes).await?;
        Ok(())
    }

    async fn begin(&self, run: &str, state: &State) -> Result<bool, LoadError> {
        let next = next_life(state.clone());
        let (expected, position) = (state.position, next.position);
        let said = self.shelf.begin(run, Some(&expected), &position, &encode(next).await?).await?;
        Ok(said.word == Word::Done)
    }

    /// What was written may not have reached the replicas: nothing of it is shown before it has.
    async fn must_be_replicated(&self, run: &str, state: &State) -> Result<(), LoadError> {
        if !self.shelf.has_replicas() {
            return Ok(());
        }
        let (said, is_replicated) = self.shelf.confirm(run, state.position.epoch).await?;
        if said.word == Word::Done && is_replicated {
            return Ok(());
        }
        Err(LoadError::Trouble(Trouble::Away("its replicas don't have all that it has; fewer follow it than `replicas` says".to_owned())))
    }
}

async fn encode(state: State) -> Result<Vec<u8>, LoadError> {
    load::encode(state).await.map_err(|why| LoadError::Damaged { seq: 0, why })
}
