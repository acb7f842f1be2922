//! Those who read, write, purge, publish and configure.

use wire::{Alias, Class, Digest, Epoch, Fact, Mode};

use super::{What, World};
use crate::named;
use crate::origin::{Config, unknown};
use crate::origins::Order;
use crate::plan::{KEYS, Write, pick};
use crate::serving::Wish;
use crate::truth::{About, Configured, Purge};

impl World {
    pub(super) fn next_read(&mut self) {
        let pause = self.chance.between(1, 2 * self.plan.between_reads);
        let (at, key) = (self.chance.index(self.edges.len()), self.chance.index(KEYS));
        let wish = match self.chance.between(0, 19) {
            0 | 1 => Wish::Reload,
            2 => Wish::Head,
            _ => Wish::Any,
        };
        self.after(pause, What::Read { at, key, wish, came: self.now + pause });
        self.after(pause, What::Reader);
    }

    pub(super) fn write(&mut self) {
        if self.is_ending {
            return;
        }
        let writes = self.plan.writes.clone();
        if let Some(write) = pick(&mut self.chance, &writes) {
            self.begin_write(write);
        }
        let pause = self.chance.between(1, 2 * self.plan.between_writes);
        self.after(pause, What::Write);
    }

    pub(super) fn begin_write(&mut self, write: Write) {
        let key = self.chance.index(KEYS);
        match write {
            Write::Hard | Write::Soft | Write::Unknown => {
                let about = [About::Key(key), About::Key(key), About::Tag(key % 2), About::All][self.chance.index(4)];
                let about = if write == Write::Unknown { About::All } else { about };
                for key in (0..KEYS).filter(|key| about.touches(*key)) {
                    self.upstream.write(key, self.now);
                }
                let mode = if write == Write::Soft { Mode::Soft } else { Mode::Hard };
                let pause = self.delay();
                self.after(pause, What::Purge { mode, about, is_unknown: write == Write::Unknown });
            }
            Write::Unsafe => {
                let at = self.chance.index(self.edges.len());
                let life = self.edges.get(at).map_or(0, |edge| edge.life);
                let delay = self.delay();
                self.after(delay, What::UnsafeWrites { at, life, key });
            }
            Write::Settings if self.fleet.is_some() => self.order(Order::Settings),
            Write::Publish if self.fleet.is_some() => self.order(Order::Publish),
            Write::UnknownConfig if self.fleet.is_some() => self.order(Order::UnknownConfig),
            Write::Settings => self.configure(Config { settings: self.config.settings + 1, ..self.config }),
            Write::Lease => {
                let lease = self.plan.lease * [1, 2, 4, 8][self.chance.index(4)] / 4;
                let is_lazy = self.chance.of_thousand(500);
                if self.fleet.is_some() {
                    return self.order(Order::Lease { lease, is_lazy });
                }
                self.configure(Config { lease, is_lazy, ..self.config });
            }
            Write::Publish => {
                let version = Digest::of(&self.now.to_be_bytes());
                self.append(Fact::AliasMoved { site: named("www"), alias: Alias::production(), version, back: false });
            }
            Write::UnknownConfig => {
                if let Some(position) = self.append(unknown(Class::Config)) {
                    self.tell(|| format!("configuration {} is appended, which nobody understands", position.seq));
                    let configured = Configured { epoch: position.epoch, seq: position.seq, settings: None, complete: None };
                    self.truth.configured.push(configured);
                }
            }
        }
    }

    pub(super) fn configure(&mut self, config: Config) {
        let config = Config { number: config.number + 1, ..config };
        if let Some(position) = self.append(Fact::ConfigChanged { number: config.number, network: config.written() }) {
            self.tell(|| format!("configuration {} is appended: {config:?}", position.seq));
            self.config = config;
            self.longest = self.longest.max(config.lease);
            let settings = Some(config.settings);
            self.truth.configured.push(Configured { epoch: position.epoch, seq: position.seq, settings, complete: None });
        }
    }

    pub(super) fn purge(&mut self, mode: Mode, about: About, is_unknown: bool) {
        let purge = Purge {
            epoch: Epoch::from_bytes([0; 8]),
            seq: 0,
            appended: self.now,
            mode,
            about,
            complete: None,
            accepted: false,
            is_void: false,
        };
        if self.fleet.is_some() {
            return self.order(Order::Purge { purge, is_unknown, of: None });
        }
        let fact = if is_unknown { unknown(Class::Purge) } else { purge.fact() };
        if let Some(position) = self.append(fact) {
            self.tell(|| format!("{mode:?} purge {} of {about:?} is appended", position.seq));
            self.truth.purges.push(Purge { epoch: position.epoch, seq: position.seq, ..purge });
        } else {
            // Its sender tries again.
            let pause = self.plan.heartbeat;
            self.after(pause, What::Purge { mode, about, is_unknown });
        }
    }

    pub(super) fn unsafe_writes(&mut self, at: usize, life: u64, key: usize) {
        self.upstream.write(key, self.now);
        let written = self.now;
        let slowest = self.plan.slowest_fetch;
        let (delay, has_answer) = (self.chance.between(1, slowest), !self.chance.of_thousand(100));
        self.after(delay, What::UnsafeAnswered { at, life, key, written, has_answer });
    }

    pub(crate) fn announce(&mut self, at: usize, life: u64, key: usize) {
        let delay = self.delay();
        self.after(delay, What::Announce { at, life, key });
    }

    pub(super) fn take_announcement(&mut self, at: usize, life: u64, key: usize) {
        let is_cut = self.cables.get(at).is_some_and(|cable| cable.is_cut);
        let purge = Purge {
            epoch: Epoch::from_bytes([0; 8]),
            seq: 0,
            appended: self.now,
            mode: Mode::Hard,
            about: About::Key(key),
            complete: None,
            accepted: false,
            is_void: false,
        };
        if self.fleet.is_some() && !is_cut {
            return self.order(Order::Purge { purge, is_unknown: false, of: Some((at, life, key)) });
        }
        let position = if is_cut { None } else { self.append(purge.fact()) };
        if let Some(position) = position {
            self.tell(|| format!("purge {} of key {key} is appended for edge {at}", position.seq));
            self.truth.purges.push(Purge { epoch: position.epoch, seq: position.seq, ..purge });
            let delay = self.delay();
            self.after(delay, What::Announced { at, life, key, seq: position.seq });
        } else if self.lives(at, life) {
            let pause = self.plan.heartbeat;
            self.after(pause, What::Announce { at, life, key });
        }
    }
}
